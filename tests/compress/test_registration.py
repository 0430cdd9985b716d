import subprocess
import sys

import pytest

ORDERS = {
    "compress first": "import compress; import transformers",
    "transformers first": "import transformers.quantizers.auto; import compress",
    "a submodule first": "import compress.config; import transformers",
    "twice": "import compress; import compress.layers; import transformers",
}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_the_quantizer_is_known_whatever_is_imported_first(order):
    check = "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as known"
    run(f"{ORDERS[order]}; {check}; assert 'shrinkflow' in known")


def test_importing_the_library_is_cheap():
    heavy = "{'torch', 'transformers'} & {*sys.modules}"
    run(f"import sys, compress, compress.config; assert not {heavy}")
