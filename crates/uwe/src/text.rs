//! From a text to token ids, with the place of each token in the text and a plain word about truncation.

use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Most tokens of a text, special tokens included, unless told otherwise.
pub const DEFAULT_MAX_TOKENS: usize = 64;

/// The tokens of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids, special tokens included.
    pub ids: Vec<u32>,
    /// Character range of each token in the text; empty for a special token.
    pub ranges: Vec<Range<usize>>,
    /// Whether the text had more tokens than the limit, so that its end was left out.
    pub truncated: bool,
}

/// Turns texts into tokens.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    fingerprint: String,
    max_tokens: usize,
    special: (usize, usize),
    vocabulary_size: usize,
}

/// The part of a tokenizer's file that is looked at before the library does.
#[derive(serde::Deserialize)]
struct Decoder {
    #[serde(rename = "decoder")]
    _decoder: Option<serde_json::Value>,
}

impl Tokenizer {
    /// Opens `tokenizer.json`. Truncation and padding that it asks for are switched off; `max_tokens` is
    /// the limit here.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that cannot be used, [`Error::Argument`] for a limit without room.
    pub fn open(file: &Path, max_tokens: usize) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
        let unsound = |problem: String| {
            Error::model(
                file,
                problem,
                "get the tokenizer again, as a `tokenizer.json` of Hugging Face's format",
            )
        };
        // The library takes it for granted that a decoder is sound JSON, and panics where it is not.
        serde_json::from_slice::<Decoder>(&bytes).map_err(|error| unsound(error.to_string()))?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| unsound(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| unsound(error.to_string()))?;
        inner.with_padding(None);
        let probe = inner.encode("a", true).map_err(|error| unsound(error.to_string()))?;
        let mask = probe.get_special_tokens_mask();
        let before = mask.iter().take_while(|special| **special == 1).count();
        let after = mask[before..].iter().rev().take_while(|special| **special == 1).count();
        if max_tokens <= before + after {
            return Err(Error::Argument {
                name: "max tokens",
                problem: format!("{max_tokens} leaves no room beside {} special tokens", before + after),
            });
        }
        let fingerprint = blake3::hash(&bytes).to_hex()[..32].to_string();
        let vocabulary_size = inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self { inner, fingerprint, max_tokens, special: (before, after), vocabulary_size })
    }

    /// Fingerprint of the tokenizer file.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Number of special tokens before and after a text's own.
    pub fn special_tokens(&self) -> (usize, usize) {
        self.special
    }

    /// Largest token id plus one.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The tokens of `text`, at most [`Tokenizer::max_tokens`] of them: the end is left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer refuses the text.
    pub fn tokenize(&self, text: &str) -> Result<Tokens> {
        let refused = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
        let room = self.max_tokens - self.special.0 - self.special.1;
        // A text of a megabyte is not tokenised whole to keep 64 tokens of it: a part that ends between two
        // words gives the same first tokens. The part grows until it has enough of them.
        let mut length = 64 * self.max_tokens;
        let (mut encoding, mut whole) = (None, false);
        while !whole {
            let part = leading_words(text, length);
            whole = part.len() == text.len();
            let tokens = self.inner.encode_char_offsets(part, false).map_err(refused)?;
            let enough = tokens.len() > room;
            encoding = Some(tokens);
            if enough {
                break;
            }
            length = length.saturating_mul(4);
        }
        let mut encoding = encoding.unwrap_or_default();
        let truncated = encoding.len() > room;
        if truncated {
            encoding.truncate(room, 0, tokenizers::TruncationDirection::Right);
        }
        let encoding = self.inner.post_process(encoding, None, true).map_err(refused)?;
        let ranges = encoding
            .get_offsets()
            .iter()
            .zip(encoding.get_special_tokens_mask())
            .map(|((start, end), special)| if *special == 1 { 0..0 } else { *start..*end })
            .collect();
        Ok(Tokens { ids: encoding.get_ids().to_vec(), ranges, truncated })
    }
}

/// The longest part of `text` of at most `length` bytes that ends before white space, or the whole text
/// when it is short enough or has no such place.
fn leading_words(text: &str, length: usize) -> &str {
    if text.len() <= length {
        return text;
    }
    let window = &text[..text.floor_char_boundary(length)];
    match window.rfind(char::is_whitespace) {
        Some(end) if end > 0 => &text[..end],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_words_end_between_words() {
        assert_eq!(leading_words("one two three", 9), "one two");
        assert_eq!(leading_words("one two three", 13), "one two three");
        assert_eq!(leading_words("onetwothree", 5), "onetwothree");
        assert_eq!(leading_words("éé éé", 6), "éé");
        assert_eq!(leading_words("", 4), "");
    }
}
