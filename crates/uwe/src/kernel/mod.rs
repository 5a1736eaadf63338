//! The few hot loops, each with a reference in its tests: linear layers, attention, layer normalisation,
//! late interaction, top-k. Beside the two calls that map a file and `team.rs`, this module holds the only `unsafe` code.

mod attention;
mod buffer;
mod interaction;
mod lanes;
mod linear;
mod math;
mod narrow;
mod norm;
mod top_k;

pub(crate) use attention::{Attention, DistanceBias, Scratch as AttentionScratch};
pub(crate) use buffer::Buffer;
pub(crate) use interaction::{Aggregation, PanelView, Pass, QueryTokens, Ranges, States};
pub use lanes::InstructionSet;
pub(crate) use lanes::LANES;
pub(crate) use linear::{Linear, Scratch as LinearScratch, Then};
pub(crate) use norm::{LayerNorm, inverse_norm, mean_of_rows, norm};
pub(crate) use top_k::TopK;

use std::fmt;

/// Precision of the encoder's matrix products. Everything else is always `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floating point: the reference, the same bits on every processor.
    #[default]
    F32,
    /// bfloat16 factors with f32 sums, where the processor multiplies them (AVX-512 BF16).
    Bf16,
    /// 16-bit fixed-point factors with exact 32-bit sums (AVX-512 VNNI or AVX2): faster than bf16 where that is slow or
    /// missing, closer to f32, and the same bits on every processor that has it.
    Int16,
}

impl Precision {
    /// All precisions, the reference first.
    pub fn all() -> [Self; 3] {
        [Self::F32, Self::Bf16, Self::Int16]
    }

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        self == Self::F32 || narrow::Pairs::available(self).next().is_some()
    }

    /// The name used in options and reports: `f32`, `bf16`, `int16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int16 => "int16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
