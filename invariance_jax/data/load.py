"""From the two words in a config to images."""

from invariance_jax.data import digits, tfds
from invariance_jax.data.source import Source


def load_source(
    name: str, split: str, *, data_dir: str = "", label_feature: str = tfds.DEFAULT_LABEL
) -> Source:
    """Opens a data set.

    Args:
        name: "digits" (embedded, needs nothing), or an image classification data set prepared by
            TensorFlow Datasets as ArrayRecord: `name[/config][:version]`.
        split: In TFDS notation: `train`, `train[:10%]`, `validation[:64]`.
        data_dir: The TFDS folder; not read for digits.
        label_feature: The TFDS feature that holds the class; not read for digits.

    Returns:
        The images, in the data set's own order.

    Raises:
        UserError: The data set, the folder or the split is not there or cannot be used.

    Examples:
        >>> load_source("digits", "train[:3]")[0]["name"]
        'digits_0000'
    """
    if name == digits.NAME:
        return digits.DigitsSource(split)
    return tfds.TfdsSource(name, split, data_dir, label_feature)
