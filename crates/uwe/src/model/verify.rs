//! Comparing an encoder's numbers with a stored reference, made by the Python implementation.
//!
//! A reference is a safetensors file: `texts` and `max_tokens` in its metadata (a JSON list, a number),
//! `input_ids` and `offsets` (i64), `token_embeddings` (tokens x dimension, f32) and `pooled`
//! (texts x dimension, f32). `crates/uwe/tests/golden/generate.py` writes such files.

use super::Encoder;
use crate::error::{Error, Result};
use crate::text::Tokens;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// How far an encoder is from a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// Number of texts compared.
    pub texts: usize,
    /// Number of tokens compared.
    pub tokens: usize,
    /// Texts whose token ids differ.
    pub different_tokens: Vec<String>,
    /// Largest difference of any entry of a token state.
    pub largest_state_difference: f32,
    /// Largest difference of any entry of a pooled vector.
    pub largest_pooled_difference: f32,
    /// Smallest cosine between a token state and its reference.
    pub smallest_cosine: f64,
}

impl Encoder {
    /// Encodes the texts of a reference and compares.
    ///
    /// # Errors
    /// [`Error::Model`] when the file is no reference for this model.
    pub fn verify(&self, reference: &Path) -> Result<Verification> {
        let bytes = std::fs::read(reference).map_err(Error::io("read", reference))?;
        let unsound = |problem: String| {
            Error::model(reference, problem, "make a reference with crates/uwe/tests/golden/generate.py")
        };
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| unsound(format!("is no safetensors file: {error}")))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| unsound(format!("is no safetensors file: {error}")))?;
        let entry = |name: &str| {
            let value = header.metadata().as_ref().and_then(|entries| entries.get(name));
            value.ok_or_else(|| unsound(format!("has no `{name}` in its metadata")))
        };
        let texts: Vec<String> = serde_json::from_str(entry("texts")?)
            .map_err(|error| unsound(format!("has unsound texts: {error}")))?;
        let limit = entry("max_tokens")?;
        if *limit != self.tokenizer.max_tokens().to_string() {
            return Err(Error::Argument {
                name: "max tokens",
                problem: format!("the reference was made with {limit}; open the encoder with that"),
            });
        }
        let read = |name: &str, dtype: Dtype| {
            let tensor = tensors.tensor(name).map_err(|_| unsound(format!("has no tensor `{name}`")))?;
            if tensor.dtype() == dtype {
                Ok(tensor.data())
            } else {
                Err(unsound(format!("has tensor `{name}` of type {:?}", tensor.dtype())))
            }
        };
        let whole = |name: &str| -> Result<Vec<i64>> {
            Ok(read(name, Dtype::I64)?.chunks_exact(8).map(|b| i64::from_le_bytes(eight(b))).collect())
        };
        let real = |name: &str| -> Result<Vec<f32>> {
            let bytes = read(name, Dtype::F32)?;
            Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let (ids, offsets) = (whole("input_ids")?, whole("offsets")?);
        let (states, pooled) = (real("token_embeddings")?, real("pooled")?);
        let dimension = self.info.dimension;
        let bounds: Vec<usize> = offsets.iter().map(|offset| *offset as usize).collect();
        let fits = bounds.len() == texts.len() + 1
            && bounds.first() == Some(&0)
            && bounds.is_sorted()
            && bounds.last() == Some(&ids.len())
            && states.len() == ids.len() * dimension
            && pooled.len() == texts.len() * dimension;
        if !fits {
            return Err(unsound(format!("does not hold states of width {dimension} for its texts")));
        }
        let mut found = Verification {
            texts: texts.len(),
            tokens: ids.len(),
            different_tokens: Vec::new(),
            largest_state_difference: 0.0,
            largest_pooled_difference: 0.0,
            smallest_cosine: 1.0,
        };
        let encoded = self.encode(&texts)?;
        for (index, (text, tokens)) in texts.iter().zip(&encoded.tokens).enumerate() {
            let range = bounds[index]..bounds[index + 1];
            let expected = &states[range.start * dimension..range.end * dimension];
            if !same_ids(tokens, &ids[range]) {
                found.different_tokens.push(text.clone());
                continue;
            }
            let own = encoded.states.text(index);
            found.largest_state_difference =
                found.largest_state_difference.max(largest_difference(own, expected));
            for (a, b) in own.chunks_exact(dimension).zip(expected.chunks_exact(dimension)) {
                found.smallest_cosine = found.smallest_cosine.min(cosine(a, b));
            }
            let expected = &pooled[index * dimension..(index + 1) * dimension];
            let difference = largest_difference(&self.pool(own), expected);
            found.largest_pooled_difference = found.largest_pooled_difference.max(difference);
        }
        Ok(found)
    }
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    std::array::from_fn(|index| bytes[index])
}

fn same_ids(tokens: &Tokens, expected: &[i64]) -> bool {
    tokens.ids.len() == expected.len() && tokens.ids.iter().zip(expected).all(|(a, b)| i64::from(*a) == *b)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
