"""Programs that lines of the acceptance run in the clone's environment.

Each prints its values as one JSON object on its last line and exits 1 if what it checks is wrong.
"""
