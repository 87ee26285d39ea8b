"""Tiny captioning models with random weights, a captioner that counts, and images to caption."""

import hashlib
import io
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

NOW = datetime(2026, 10, 1, tzinfo=UTC)
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
CONFIG = """project: captions
provider: local
registry: data/registry.db
online_store:
  type: materialize.online_store.PinfeatherOnlineStore
  path: data/online
"""
_SEES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_ENDS = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}


def tokenizer(image_token=False):
    """BERT's, with the vocabulary of the packaged MiniLM."""
    from transformers import BertTokenizerFast

    from embedders.model_folder import packaged_model_path

    made = BertTokenizerFast.from_pretrained(packaged_model_path(), local_files_only=True)
    made.backend_tokenizer.no_truncation()
    made.backend_tokenizer.no_padding()
    made.init_kwargs.pop("max_length", None)
    if image_token:
        made.add_tokens(["<image>"], special_tokens=True)
    return made


def save_blip(folder, seed=0, **vision):
    """A BLIP of two layers; the processor takes its PIL path."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    words = tokenizer()
    reads = {**_SEES, **_ENDS, "vocab_size": len(words), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    sees = {**_SEES, "image_size": 32, "patch_size": 16, **vision}
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig(text_config={**reads, "sep_token_id": 102}, vision_config=sees))
    side = sees["image_size"]
    return _save(folder, model, BlipProcessor(BlipImageProcessorPil(size={"height": side, "width": side}), words))


def save_blip2(folder, seed=0):
    """A BLIP-2 of two layers each over an OPT of two."""
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil

    words = tokenizer(image_token=True)
    writes = {"model_type": "opt", "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64}
    writes |= {"num_attention_heads": 2, "max_position_embeddings": 128, "word_embed_proj_dim": 32, **_ENDS}
    asks = {**_SEES, "encoder_hidden_size": 32, "vocab_size": 100, "max_position_embeddings": 32}
    config = Blip2Config(
        vision_config={**_SEES, "image_size": 28, "patch_size": 14},
        qformer_config=asks,
        text_config=writes,
        num_query_tokens=4,
        image_token_index=len(words) - 1,
    )
    torch.manual_seed(seed)
    processor = Blip2Processor(BlipImageProcessorPil(size={"height": 28, "width": 28}), words, num_query_tokens=4)
    return _save(folder, Blip2ForConditionalGeneration(config), processor)


def save_chat(folder, seed=0):
    """A LLaVA of two layers each, with a chat template."""
    import torch
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    words = tokenizer(image_token=True)
    writes = {**_SEES, **_ENDS, "model_type": "llama", "vocab_size": len(words), "max_position_embeddings": 256}
    sees = {**_SEES, "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, "projection_dim": 32}
    config = LlavaConfig(vision_config=sees, text_config=writes, image_token_index=len(words) - 1, image_seq_length=4)
    torch.manual_seed(seed)
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(images, words, 14, "default", num_additional_image_tokens=1, chat_template=CHAT)
    return _save(folder, LlavaForConditionalGeneration(config), processor)


def _save(folder, model, processor):
    from embedders.backbone import quiet_transformers

    with quiet_transformers():
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def png(number, size=16):
    """Bytes of a plain image that :class:`CountingCaptioner` knows again."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 77)).save(stream, "PNG")
    return stream.getvalue()


def sha(data):
    """The key of an image."""
    return hashlib.sha256(data).hexdigest()


class CountingCaptioner:
    """A fake at the edge: says which image it sees, and keeps every call."""

    def __init__(self, version="one", words="a photo of thing {number} on a table"):
        self.name = f"fake-{version}"
        self.fingerprint = xxhash.xxh3_128_hexdigest(self.name.encode())
        self.model_seconds = 0.0
        self.words = words
        self.calls = []

    @property
    def images(self):
        """The number of every image that was captioned, in order."""
        return [number for call in self.calls for number in call]

    def caption(self, images):
        numbers = [int(pixel[0]) + 256 * int(pixel[1]) for pixel in (np.asarray(image)[0, 0] for image in images)]
        self.calls.append(numbers)
        self.model_seconds += 0.001
        return [self.words.format(number=number) for number in numbers]


def new_gallery(folder):
    """A gallery of a repository of its own, which nothing was applied to."""
    from feature_repo.paths import RepoPaths

    root = folder / "repo"
    root.mkdir()
    (root / "feature_store.yaml").write_text(CONFIG)
    return Gallery(RepoPaths.open(root), folder / "images")


class Gallery:
    """Pins with images in files, whose valid table a test writes."""

    def __init__(self, paths, images):
        self.paths, self.folder, self.pins = paths, images, {}
        images.mkdir(parents=True, exist_ok=True)

    def put(self, pin_id, number, born=NOW, file=True, **more):
        """A pin with image ``number``."""
        data = png(number)
        if file:
            (self.folder / f"{number}.png").write_bytes(data)
        self.pins[pin_id] = {"image_uri": f"{number}.png", "image_sha256": sha(data), "created_at": born, **more}
        return self

    def save(self):
        """The valid pins table."""
        texts = [(name, pa.string()) for name in ("pin_id", "image_uri", "image_sha256")]
        times = [(name, pa.timestamp("us", "UTC")) for name in ("created_at", "event_timestamp", "deleted_at")]
        schema = pa.schema([*texts, *times])
        rows = [{"pin_id": pin, "event_timestamp": NOW, **columns} for pin, columns in self.pins.items()]
        self.paths.valid.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), self.paths.valid / "pins.parquet")
        return self

    def caption(self, captioner, **options):
        """A run over the files."""
        from materialize.captions.run import CaptionOptions, caption
        from materialize.captions.sources import FolderImages

        self.save()
        source = options.pop("source", None) or FolderImages(self.folder)
        return caption(self.paths, captioner, lambda: captioner, source, CaptionOptions(**options))

    def captions(self, captioner):
        """Image number to caption, of the good ones and the flagged."""
        from materialize.captions.stage import CaptionStage

        known = {sha(png(number)): number for number in range(64)}
        rows = CaptionStage(self.paths.captions, captioner.fingerprint).table().to_pylist()
        assert len({row["image_sha256"] for row in rows}) == len(rows)
        return {known[row["image_sha256"]]: row["caption"] for row in rows}

    def rejected(self):
        """Image key to reason."""
        file = self.paths.rejected / "images.parquet"
        rows = pq.read_table(file).to_pylist() if file.is_file() else []
        return {row["image_sha256"]: row["reason"] for row in rows}
