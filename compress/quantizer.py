"""The Hugging Face quantizer "shrinkflow": how `from_pretrained` and `save_pretrained` meet codecs.

transformers calls it: the layers listed in config.json are replaced on the meta device before the
weights are read, files are verified before and codes after.
"""

from typing import Any

from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from compress.errors import CheckpointError, InputError

METHOD = "shrinkflow"
PLAIN, CODED = 1, 2  # versions of the format: all codes are packed, some are entropy-coded


@register_quantization_config(METHOD)
class ShrinkflowConfig(QuantizationConfigMixin):
    """`quantization_config` of config.json.

    layers: one entry a compressed weight (compress.manifest.LayerEntry); rest: precision of all
    else on disk; sha256: {file name: digest}, written by `save_compressed`, empty after a plain
    `save_pretrained`; format_version: the first whose readers can read these layers. Raises
    CheckpointError for a newer format or unknown keys.
    """

    def __init__(
        self,
        layers: list[dict[str, Any]] | None = None,
        rest: str = "float16",
        format_version: int | None = None,
        sha256: dict[str, str] | None = None,
        quant_method: str = METHOD,
        **unknown: Any,
    ):
        if format_version not in (None, PLAIN, CODED):
            raise CheckpointError(
                f"config.json: format_version {format_version} is not {PLAIN} or {CODED}, "
                "the ones this version of Shrinkflow reads; update the package"
            )
        if unknown:
            raise CheckpointError(f"config.json: unknown keys {', '.join(sorted(unknown))}")
        if rest not in ("float16", "float32"):
            raise CheckpointError(f"config.json: rest is {rest!r:.60}, not float16 or float32")
        if not isinstance(layers, list | None):
            raise CheckpointError("config.json: `layers` is no list")
        if not isinstance(sha256, dict | None):
            raise CheckpointError("config.json: `sha256` is no object of file names and digests")
        self.quant_method: Any = quant_method
        self.layers = layers or []
        coded = any(isinstance(layer, dict) and "coded" in layer for layer in self.layers)
        self.format_version = format_version or (CODED if coded else PLAIN)
        self.rest = rest
        self.sha256 = sha256 or {}


@register_quantizer(METHOD)
class ShrinkflowQuantizer(HfQuantizer):
    """Loads and saves compressed models. They are trainable: centroids, biases, all the rest."""

    quantization_config: ShrinkflowConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        if not self.pre_quantized:
            raise InputError(
                "from_pretrained does not compress; run `shrinkflow run` and load what it wrote"
            )

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from compress.manifest import install, read_entries
        from compress.verify import check_digests, check_headers

        entries = read_entries(self.quantization_config.layers)
        files = kwargs.get("checkpoint_files") or []
        if not files:  # a state dict was handed in, of a model in memory: its codes are packed
            entries = [entry.model_copy(update={"coded": None}) for entry in entries]
        check_digests(files, self.quantization_config.sha256)
        check_headers(files, entries)
        saved_as = getattr(model.config, "architectures", None) or []
        install(model, entries, strict=type(model).__name__ in saved_as)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        from compress.verify import check_codecs

        check_codecs(model)

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """What `save_pretrained` writes: lossless, fp16 wherever that is exact.

        The config is brought up to date first, as layers may have been added since it was loaded.
        """
        from compress.manifest import list_entries
        from compress.stored import coded_tensors, stored_state

        rest, streams = self.quantization_config.rest, coded_tensors(model)
        self.quantization_config = ShrinkflowConfig(list_entries(model, streams), rest)
        model.config.quantization_config = self.quantization_config
        return stored_state(model, rest, streams), {}

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        return True
