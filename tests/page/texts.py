"""Texts as a stranger would write them to break a page that shows them, and texts of every direction."""

from __future__ import annotations

SCRIPT = '<script>document.title="owned";window.owned=1</script> a black cat on a mat'
HANDLER = '"><img src=x onerror="window.owned=1"> photo of the tabby'
SVG = "</title></style><svg onload='window.owned=1'> picture of the poodle"
ENTITY = (
    "the beagle is in a garden near the house &lt;script&gt;window.owned=1&lt;/script&gt; &#x27;"
)
TEMPLATE = "{{ 7 * 7 }} {% raw %} ${window.owned=1} the siamese in a garden"
ARABIC = "قطة سوداء تجلس على كرسي في الحديقة"
ARABIC_BRAND = "Nike حذاء رياضي جديد للرجال بسعر مناسب في المتجر"
HEBREW = "חתול שחור יושב על כיסא בגן"
JAPANESE = "黒い猫が椅子の上に座っています"
CHINESE = "一只黑色的小狗在花园里"
OVERRIDE = "the terrier saves \u202egpj.exe\u202c and \u2066more\u2069"
CONTROLS = "the spaniel says \x07\x1b[31mred\x1b[0m \x9b2J and \ufeffhides"
TOWER = "the corgi likes za\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308\u0309lgo"
LONG_WORD = "the mastiff " + "x" * 99_000
TOO_LONG = "the labrador " + "y" * 100_100
NUL = "the collie\x00 is cut"
