//! Encoded queries that are kept between runs.
//!
//! A file holds the token states of some neighbouring queries. Its name is a fingerprint of the encoder and the texts, its
//! last 32 bytes a checksum; a file that does not fit is made again.

use crate::error::{Error, Result};
use crate::results::write_whole;
use std::path::Path;
use uwe::{Encoder, TokenStates};

/// Token states of some texts.
pub(super) struct Kept {
    pub(super) states: TokenStates,
    /// How many of the texts were cut at the token limit.
    pub(super) truncated: usize,
}

/// Encodes texts, or reads what an earlier call has kept in `folder`.
pub(super) fn encode(encoder: &Encoder, texts: &[String], folder: Option<&Path>) -> Result<Kept> {
    let file = folder.map(|folder| folder.join(format!("{}.states", fingerprint(encoder, texts))));
    if let Some(file) = &file
        && let Some(kept) = std::fs::read(file).ok().and_then(|bytes| read(&bytes))
    {
        return Ok(kept);
    }
    let encoded = encoder.encode(texts)?;
    let truncated = encoded.tokens.iter().filter(|tokens| tokens.truncated).count();
    let kept = Kept { states: encoded.states, truncated };
    if let (Some(file), Some(folder)) = (file, folder) {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        write_whole(&file, &write(&kept))?;
    }
    Ok(kept)
}

fn fingerprint(encoder: &Encoder, texts: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    let (info, tokenizer) = (encoder.info(), encoder.tokenizer());
    let precision = encoder.options().precision.to_string();
    let limit = tokenizer.max_tokens().to_string();
    let parts = [&info.fingerprint[..], tokenizer.fingerprint(), &precision, &limit];
    for part in parts.into_iter().chain(texts.iter().map(|text| &text[..])) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// Dimension, number of cut texts, number of offsets, offsets, states, checksum; all little-endian.
fn write(kept: &Kept) -> Vec<u8> {
    let (states, offsets) = (kept.states.values(), kept.states.offsets());
    let mut bytes = Vec::with_capacity(24 + offsets.len() * 8 + states.len() * 4 + 32);
    let head = [kept.states.dimension(), kept.truncated, offsets.len()];
    for number in head.iter().chain(offsets) {
        bytes.extend((*number as u64).to_le_bytes());
    }
    states.iter().for_each(|state| bytes.extend(state.to_le_bytes()));
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Option<Kept> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(content).as_bytes() != sum {
        return None;
    }
    let number = |place: usize| {
        let bytes = content.get(place * 8..place * 8 + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (dimension, truncated, count) = (number(0)?, number(1)?, number(2)?);
    let offsets: Vec<usize> = (3..3usize.checked_add(count)?).map(number).collect::<Option<_>>()?;
    let states = content.get((3 + count) * 8..)?;
    let values =
        states.chunks_exact(4).map(|state| f32::from_le_bytes([state[0], state[1], state[2], state[3]]));
    Some(Kept { states: TokenStates::new(values.collect(), offsets, dimension).ok()?, truncated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_is_seen() {
        let states = TokenStates::new((0..12).map(|i| i as f32 * 0.3).collect(), vec![0, 1, 3], 4).unwrap();
        let bytes = write(&Kept { states: states.clone(), truncated: 1 });
        let kept = read(&bytes).unwrap();
        assert_eq!(
            (kept.states.values(), kept.states.offsets(), kept.truncated),
            (states.values(), states.offsets(), 1)
        );
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_none(), "bit {bit}");
        }
        assert!(read(&[]).is_none() && read(&bytes[..40]).is_none());
    }
}
