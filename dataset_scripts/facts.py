"""What the literature says of each dataset: where its posts come from, who is to be cited, what Table 1 counts."""

import dataclasses

from dataset_scripts.loaders.sample.posts import CARD_TEXT

BIBTEX = {
    "mpt": """\
@inproceedings{ma2025mpt,
  title = {Multimodal Sentiment Analysis with Multi-Perspective Thinking via Large Multimodal Models},
  author = {Ma, Juhao and Xu, Shuai and Li, Yicong and Fu, Xiaoming},
  booktitle = {Proceedings of the 34th ACM International Conference on Information and Knowledge Management},
  year = {2025},
  doi = {10.1145/3746252.3761328}
}""",
    "mvsa": """\
@inproceedings{niu2016mvsa,
  title = {Sentiment Analysis on Multi-View Social Data},
  author = {Niu, Teng and Zhu, Shiai and Pang, Lei and El Saddik, Abdulmotaleb},
  booktitle = {International Conference on Multimedia Modeling},
  pages = {15--27},
  publisher = {Springer},
  year = {2016}
}""",
    "multisentinet": """\
@inproceedings{xu2017multisentinet,
  title = {{MultiSentiNet}: A Deep Semantic Network for Multimodal Sentiment Analysis},
  author = {Xu, Nan and Mao, Wenji},
  booktitle = {Proceedings of the 2017 ACM on Conference on Information and Knowledge Management},
  pages = {2399--2402},
  year = {2017}
}""",
    "clmlf": """\
@article{li2022clmlf,
  title = {{CLMLF}: A Contrastive Learning and Multi-Layer Fusion Method for Multimodal Sentiment Detection},
  author = {Li, Zhen and Xu, Bing and Zhu, Conghui and Zhao, Tiejun},
  journal = {arXiv preprint arXiv:2204.05515},
  year = {2022}
}""",
    "memotion": """\
@article{sharma2020memotion,
  title = {{SemEval}-2020 Task 8: Memotion Analysis -- The Visuo-Lingual Metaphor!},
  author = {Sharma, Chhavi and Bhageria, Deepesh and Scott, William and Pykl, Srinivas and Das, Amitava and
            Chakraborty, Tanmoy and Pulabagari, Viswanath and Gamb{\\"a}ck, Bj{\\"o}rn},
  journal = {arXiv preprint arXiv:2008.03781},
  year = {2020}
}""",
    "ch_mits": """\
@inproceedings{ma2024chmits,
  title = {{CH-Mits}: A Cross-Modal Dataset for User Sentiment Analysis on {Chinese} Social Media},
  author = {Ma, Juhao and Xu, Shuai and Liu, Yilin and Fu, Xiaoming},
  booktitle = {Proceedings of the 33rd ACM International Conference on Information and Knowledge Management},
  pages = {5390--5394},
  year = {2024}
}""",
}


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """Of one dataset, what does not depend on a build.

    Attributes:
        title (`str`): its name in the literature.
        about (`str`): what its posts are and how they got one label.
        citations (tuple of `str`): keys of `BIBTEX`.
        table_1 (tuple of three `int`, *optional*): train, validation, test in Table 1 of the MPT paper.
        table_1_note (`str`): what is known of a difference to Table 1.
        own_terms (`bool`): texts and images belong to others, whose terms decide who may pass them on.
        license (`str`): licence id for the card's YAML.
        synthetic (`bool`): drawn by code.
        rationales (`str`): how its rationales were made, where that is the same for every build.
    """

    title: str
    about: str
    citations: tuple[str, ...] = ()
    table_1: tuple[int, int, int] | None = None
    table_1_note: str = ""
    own_terms: bool = True
    license: str = "other"
    synthetic: bool = False
    rationales: str = ""


_MERGE = (
    "Where both agree their label stands, a polarity wins over neutral, and posts with opposite polarities are left "
    "out (the rule of MultiSentiNet)."
)

FACTS = {
    "sample": DatasetFacts(
        title="MPT's embedded sample",
        about=CARD_TEXT.strip(),
        own_terms=False,
        license="apache-2.0",
        synthetic=True,
        rationales="They are written by code from the same small grammar as the posts; no model and no person wrote "
        "them.",
    ),
    "mvsa_single": DatasetFacts(
        title="MVSA-Single",
        about="Posts of Twitter, each one text and one image, which one annotator labelled separately. " + _MERGE,
        citations=("mvsa", "multisentinet"),
        table_1=(3611, 450, 450),
    ),
    "mvsa_multiple": DatasetFacts(
        title="MVSA-Multiple",
        about="Posts of Twitter, each one text and one image, which three annotators labelled separately. First the "
        "majority of the three decides for the text and for the image, and posts without a majority are left out. "
        + _MERGE,
        citations=("mvsa", "multisentinet"),
        table_1=(13624, 1700, 1700),
        table_1_note="The rule gives 17,027 posts of a full download; the ids 3910, 5995 and 15324 are missing from "
        "every published list.",
    ),
    "memotion": DatasetFacts(
        title="Memotion 7k",
        about="Memes of SemEval-2020 task 8, each with the text that stands in it, from the training file. The five "
        "degrees of `overall_sentiment` are merged into three: very positive into positive, very negative into "
        "negative.",
        citations=("memotion",),
        table_1=(5594, 699, 699),
    ),
    "ch_mits": DatasetFacts(
        title="CH-Mits",
        about="Notes of the Chinese platform Xiaohongshu, each text and image, labelled positive or negative.",
        citations=("ch_mits",),
        table_1=(1620, 202, 202),
        table_1_note="Table 1 adds up to 2,024, which counts a header line: the dataset has 2,023 posts.",
    ),
}


def facts_of(dataset: str) -> DatasetFacts:
    """The facts of a dataset id; of an unknown one (a folder of one's own) only what can be said of any."""
    return FACTS.get(
        dataset,
        DatasetFacts(title=dataset, about="Posts of the publisher's own.", own_terms=False, license="unknown"),
    )
