"""What every report page is made of: safe text, numbers, thumbnails, the style sheet.

A page is one HTML file without a script and without a request, about a data run (`dataflows report`)
or a training run (`trainer report`).
"""
