"""The networks: one entry each. Free of torch, so that listing them is quick.

A network is one file and one entry: the file holds an `nn.Module` derived from `avsbg.model.network.Network`, the entry
all that others need to know of it. See `docs/networks.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

from avsbg.model.avss import LABELS
from avsbg.model.record import (
    CheckpointLayout,
    LatentRecord,
    NetworkRecord,
    Normalisation,
    Rules,
    Scores,
    SpectrogramRecord,
    TrainingRecord,
)

_PVT_V2 = tuple(f"pvt_v2_b{n}" for n in (5, 0, 1, 2, 3, 4))
_ENCODERS = (*_PVT_V2, "resnet50", "tf_efficientnet_lite0")
_VISUAL_TO_AUDIO: Rules = (
    (r"^visual_to_audio\.mask_encoder\.(\d)\.", r"mask_encoder.\1.conv."),
    (r"^visual_to_audio\.project\.", "maksed_visual_to_audio."),  # the published key is misspelt
)

_SWIN_CONSTANTS = r".*\.(relative_position_index|attn_mask)$"


def _swin_renames(prefix: str) -> Rules:
    """Rules from timm's keys of Swin to its release's, which number the merging of patches by the stage before."""
    merging = (
        (rf"^encoder\.network\.layers\.{i + 1}\.downsample\.", f"{prefix}layers.{i}.downsample.") for i in range(3)
    )
    return (*merging, (r"^encoder\.network\.", prefix))


NETWORKS: dict[str, NetworkRecord] = {}


def register_network(record: NetworkRecord) -> None:
    """Add a network, or replace the one of that name."""
    NETWORKS[record.name] = record


def _scores(*rows: tuple[str, float, float, float, float]) -> Mapping[tuple[str, str], Scores]:
    """Rows of scores, as Table 2 of AVS-BG's paper has them: encoder, mIoU and F-score on S4, then on MS3."""
    tasks = (("s4", 1), ("ms3", 3))
    return {(str(row[0]), task): Scores(float(row[at]), float(row[at + 1])) for row in rows for task, at in tasks}


register_network(
    NetworkRecord(
        name="avs-bg",
        title="AVS-BG",
        task="AVS",
        source="arXiv 2308.08288",
        module="avsbg.model.avs_bg:AvsBg",
        encoders=_ENCODERS,
        switches=("audio", "motion", "bidirectional"),
        optional=("audio", "motion", "bidirectional"),
        efficient="without the volume",
        min_frames=2,
        checkpoint=CheckpointLayout(
            renames=(
                (r"^neck\.(\d)\.(\d)\.", r"neck.conv_list.\1.reduce.\2."),
                (r"^fusion\.(\d)\.(conv\d)\.", r"fusion_modules.\1.\2.conv."),
                (r"^correlation\.", "corr_atten."),
                (r"^decoder\.(\d)\.lateral\.", r"decoder.short_connect_with_decode_module.\1.resConfUnit1."),
                (r"^decoder\.(\d)\.refine\.", r"decoder.short_connect_with_decode_module.\1.resConfUnit2."),
                (r"^head\.", "decoder.head_up_2.output_conv."),
                *_VISUAL_TO_AUDIO,
            ),
            unit_renames=((r"\.first\.", ".ConvBNReLU1."), (r"\.second\.", ".ConvBNReLU2.")),
            encoder_prefix={"": "encoder."},
            never_used=(r"audio_neck\.", r"decoder\.short_connect_with_decode_module\.0\.resConfUnit1\."),
            # `audio_neck`, and the first residual unit of the first decoder block: two convolutions with batch norm.
            never_used_parameters={"": 128**2 + 128 + 2 * (9 * 128**2 + 2 * 128)},
        ),
        maps=("fusion_gate", "correlation_attention"),
        # The release's; its paper says batches of 8.
        training=TrainingRecord(batch=12, seed=42, has_gates=True, decodes_part=True),
        scores=_scores(("resnet50", 74.13, 0.854, 44.95, 0.568), ("pvt_v2_b5", 81.71, 0.904, 55.10, 0.668)),
    )
)

register_network(
    NetworkRecord(
        name="avsbench",
        title="AVSBench",
        task="AVS",
        source="arXiv 2207.05042",
        module="avsbg.model.avsbench:AvsBench",
        encoders=_ENCODERS,
        switches=("audio", "bidirectional"),
        optional=("audio", "bidirectional"),
        efficient="without TPAVI's matrix",
        min_frames=2,
        mixes_frames="its TPAVI sums over all frames of a clip",
        checkpoint=CheckpointLayout(
            renames=(
                (r"^neck\.(\d)\.branches\.", "conv{0+1}.conv2d_list."),
                (r"^tpavi\.(\d)\.align\.", "tpavi_b{0+1}.align_channel."),
                (r"^tpavi\.(\d)\.norm\.", "tpavi_b{0+1}.norm_layer."),
                (r"^tpavi\.(\d)\.out\.", "tpavi_b{0+1}.W_z.0."),
                (r"^tpavi\.(\d)\.out_norm\.", "tpavi_b{0+1}.W_z.1."),
                (r"^tpavi\.(\d)\.", "tpavi_b{0+1}."),
                (r"^decoder\.(\d)\.lateral\.", "path{4-0}.resConfUnit1."),
                (r"^decoder\.(\d)\.refine\.", "path{4-0}.resConfUnit2."),
                (r"^head\.", "output_conv."),
                *_VISUAL_TO_AUDIO,
            ),
            encoder_prefix={"": "encoder_backbone.", "resnet50": "resnet."},
            encoder_renames=((r"^layer([34])\.", r"layer\1_1."),),
            never_used=(r"path4\.resConfUnit1\.", r"resnet\.layer[34]_2\."),
            # The first residual unit, and with ResNet-50 a second copy of its layers 3 and 4.
            never_used_parameters={"": 2 * (9 * 256**2 + 256), "resnet50": 2 * (9 * 256**2 + 256) + 22_063_104},
        ),
        maps=("tpavi_response",),
        training=TrainingRecord(batch=4, seed=123, keeps_sound_layers=True),
        scores=_scores(("resnet50", 72.79, 0.848, 47.88, 0.578), ("pvt_v2_b5", 78.74, 0.879, 54.00, 0.645)),
    )
)

register_network(
    NetworkRecord(
        name="lvs",
        title="LVS",
        task="SSL",
        source="arXiv 2104.02691; hche11/Localizing-Visual-Sounds-the-Hard-Way @ 8fe8cbbf810e",
        module="avsbg.model.lvs:Lvs",
        encoders=("resnet18",),
        switches=("audio",),
        spectrogram=SpectrogramRecord("avsbg.model.lvs:LogSpectrogram", lambda _: (257, 671)),
        efficient="as published",
        mask="sigmoid(logits), logits = (heat - 0.65) / 0.03: the tri-map's rule of its training",
        checkpoint=CheckpointLayout(
            never_used=(r"imgnet\.(conv1_a|conv1_flow|fc)\.", r"audnet\.(conv1|conv1_flow|fc)\."),
            never_used_parameters={"": 1_076_176},
            gains=((r"^(img|aud)net\.layer\d\.\d\.conv2\.weight$", 0.7),),
        ),
        scores=_scores(("", 37.94, 0.510, 29.45, 0.330)),
    )
)

register_network(
    NetworkRecord(
        name="mssl",
        title="MSSL",
        task="SSL",
        source="arXiv 2007.06355; shvdiwnkozbw/Multi-Source-Sound-Localization @ de67ce37f34f, folder new",
        module="avsbg.model.mssl:Mssl",
        encoders=("resnet18",),
        switches=("audio",),
        spectrogram=SpectrogramRecord(
            "avsbg.model.mssl:LogMelSpectrogram", lambda seconds: (50 * seconds + 1, 64), sample_rate=22050
        ),
        efficient="without a class's mean",
        mask="logits + 0.5, the heat map in [0, 1]",
        checkpoint=CheckpointLayout(
            never_used=(r"vision\.(conv1_a|fc)\.", r"audio\.(conv1|fc)\.", r"avc\.", r"class_v\."),
            never_used_parameters={"": 1_173_586},
            gains=((r"^(vision|audio)\.layer\d\.\d\.conv2\.weight$", 0.7), (r"^class_a\.weight$", 2.0)),
        ),
        scores=_scores(("", 44.89, 0.663, 26.13, 0.363)),
    )
)

register_network(
    NetworkRecord(
        name="avsegformer",
        title="AVSegFormer",
        task="AVS",
        source="arXiv 2307.01146; vvvb-github/AVSegFormer @ 7083cb6586d1",
        module="avsbg.model.avsegformer:AvSegFormer",
        encoders=_ENCODERS,
        classes=(1, len(LABELS)),
        labels=LABELS,
        switches=("audio",),
        mask="sigmoid(logits); of 71 classes 1 - softmax(logits) of the background",
        checkpoint=CheckpointLayout(
            encoder_prefix={"": "backbone."},
            encoder_renames=((r"^layer([34])\.", r"layer\1_1."),),
            never_used=(r"vggish\.", r"head\.(attn_fc|fpn)\.", r"backbone\.layer[34]_2\."),
            # An auxiliary head, and with ResNet-50 a second copy of its layers 3 and 4.
            never_used_parameters={"": 2_102_176, "resnet50": 2_102_176 + 22_063_104},
            never_used_per_class=32,
            gains=(
                (r"\.attn\.proj\.weight$", 0.25),
                (r"^vggish\.(features|embeddings)\.\d+\.weight$", 1.5),
                (r"\.sampling_offsets\.weight$", 1.5),
                (r"\.attention_weights\.weight$", 1.5),
                (r"^head\.(learnable_query|query_generator\.query)\.weight$", 12.0),
                (r"^head\.level_embed$", 12.0),
                (r"\.(self|cross)_attn\.in_proj_weight$", 1.8),
                (r"\.(self|cross)_attn\.out_proj\.weight$", 0.3),
                (r"\.(ffn\.2|linear2)\.weight$", 0.5),
                (r"^audio_proj\.weight$", 2.0),
                (r"^head\.fusion_block\.(q_proj|kv_proj)\.weight$", 1.5),
                (r"^head\.fusion_block\.proj\.weight$", 4.0),
                (r"^head\.mlp\.layers\.0\.weight$", 0.5),
                (r"^head\.fc\.\d\.weight$", 2.0),
            ),
        ),
        # Of the repository's README for this revision; an earlier one had other weights and lower scores.
        scores={
            **_scores(("resnet50", 76.38, 0.867, 53.81, 0.656), ("pvt_v2_b5", 83.06, 0.905, 61.33, 0.730)),
            ("resnet50", "avss"): Scores(26.58, 0.315),
            ("pvt_v2_b5", "avss"): Scores(37.31, 0.428),
        },
    )
)

register_network(
    NetworkRecord(
        name="3dc",
        title="3DC",
        task="VOS",
        source="arXiv 2008.11516; sabarim/3DC-Seg @ e9e6b3110273",
        module="avsbg.model.three_dc:ThreeDc",
        encoders=("ir_csn_152",),
        # RGB in [0, 1]; the network itself subtracts its mean.
        normalisation=Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        efficient="without unused scores",
        mixes_frames="its convolutions reach over the frames of a clip",
        checkpoint=CheckpointLayout(
            renames=((r"^decoder\.(unused\.)?", "decoders.0."),),
            aliases=((r"^encoder\.resnet\.", "encoder."),),
            never_used=(r"encoder\.(conv1_p|fc)\.", r"encoder\.(mean|std)$", r"decoders\.0\.pred[345]\."),
            never_used_parameters={"": 883_030},
            gains=(
                (r"^encoder\.(resnet\.)?conv1\.weight$", 8.0),
                (r"layer\d\.\d+\.conv3\.weight$", 0.25),
                (r"layer\d\.\d+\.(conv[12]|downsample\.0)\.weight$", 1.4),
                (r"\.RF\d\.conv(FS[23]|MM[12])\.weight$|\.convG[12]\.weight$", 0.7),
            ),
        ),
        scores=_scores(("", 57.10, 0.759, 36.92, 0.503)),
    )
)

register_network(
    NetworkRecord(
        name="igan",
        title="iGAN",
        task="SOD",
        source="arXiv 2104.10127; fupiao1998/TransformerSOD @ 629678c37fd5",
        module="avsbg.model.igan:Igan",
        encoders=("swin_base_patch4_window12_384",),
        latent=LatentRecord(18),
        efficient="without the unused stage",
        checkpoint=CheckpointLayout(
            renames=(
                *_swin_renames("backbone."),
                (r"^neck\.(\d)\.(\d)\.", r"neck.conv_list.\1.reduce.\2."),
                (r"^noise_conv\.", "noise_model.noise_conv."),
                (r"\.branches\.(\d)\.", r".conv2d_list.\1.conv."),
            ),
            never_used=(r"backbone\.layers\.3\.blocks\.", _SWIN_CONSTANTS),
            never_used_parameters={"": 25_226_304},
            gains=(
                (r"\.attn\.proj\.weight$", 0.25),
                (r"relative_position_bias_table$", 1.0),
                (r"^decoder\.aspp_head\.conv2d_list\.\d\.conv\.weight$", 2.0),
            ),
        ),
        scores=_scores(("", 61.59, 0.778, 42.89, 0.544)),
    )
)

register_network(
    NetworkRecord(
        name="lgvt",
        title="LGVT",
        task="SOD",
        source="arXiv 2112.13528; JingZhang617/EBMGSOD @ 7623b9caed6b",
        module="avsbg.model.lgvt:Lgvt",
        encoders=("swin_base_patch4_window12_384",),
        latent=LatentRecord(32),
        efficient="as published",
        checkpoint=CheckpointLayout(
            renames=(
                *_swin_renames("encoder."),
                (r"^reduce\.(\d)\.", "conv{0+1}.conv_bn."),
                (r"^sal_dec\.(racb|conv)\.(\d+)\.", r"sal_dec.\1\2."),
            ),
            unit_renames=((r"\.branches\.", ".conv2d_list."),),
            never_used=(r"racb_5\.", r"layer5\.", r"conv_depth\.", r"sal_dec\.conv54321\.", _SWIN_CONSTANTS),
            never_used_parameters={"": 29_886_697},
            gains=(
                (r"\.attn\.proj\.weight$", 0.25),
                (r"^sal_dec\.conv54\d*\.conv2d_list\.\d\.weight$", 0.5),
            ),
        ),
        scores=_scores(("", 74.94, 0.873, 40.71, 0.593)),
    )
)

register_network(
    NetworkRecord(
        name="sst",
        title="SST",
        task="VOS",
        source="arXiv 2101.08833; dukebw/SSTVOS @ 6a3aa29836bf",
        module=None,
        scores=_scores(("", 66.29, 0.801, 42.57, 0.572)),
        unreleased="its repository holds an operator and a configuration, but no model and no weights",
    )
)
