"""A small tokenizer in Python, as Dream's is: a word is a token, none is special."""

import json
import os

from transformers import PreTrainedTokenizer


class DreamTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "vocab.json"}  # noqa: RUF012 (as in the library)
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, vocab_file, **kwargs):
        with open(vocab_file, encoding="utf-8") as file:
            self.encoder = json.load(file)
        self.decoder = {number: word for word, number in self.encoder.items()}
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return len(self.encoder)

    def get_vocab(self):
        return dict(self.encoder, **self.added_tokens_encoder)

    def _tokenize(self, text):
        return text.split()

    def _convert_token_to_id(self, token):
        return self.encoder.get(token, self.encoder["<|endoftext|>"])

    def _convert_id_to_token(self, index):
        return self.decoder.get(index)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        path = os.path.join(save_directory, "vocab.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.encoder, file)
        return (path,)
