//! Linear layers with 16-bit factors and wide sums: `bf16` and fixed-point `int16`.
//!
//! Both keep two neighbouring inputs of a column side by side in 32 bits, so that one instruction multiplies
//! and adds pairs; weights take half the memory of `f32`.
//!
//! - **bf16**: factors rounded to 8 significant bits, sums in f32 (`vdpbf16ps`).
//! - **int16**: factors are whole numbers times a scale, one scale for each input row and one for each
//!   output column; sums are exact in 32-bit integers (`vpdpwssd` with AVX-512 VNNI, `vpmaddwd` with AVX2), so
//!   every processor gives the same bits. A row uses 13 bits; a column as many as it can so that no sum
//!   overflows: the sum of its magnitudes times the largest input stays below 2^31. That bound is checked
//!   weight by weight when packing, so it holds for any input.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::Precision;
use super::buffer::Buffer;
use super::lanes::LANES;
use super::linear::{Output, Scratch};
use std::ops::Range;

/// The instructions that multiply pairs of 16-bit factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairs {
    Avx512Bf16,
    Avx512Vnni,
    Avx2,
}

impl Pairs {
    /// Those of this processor for a precision, the fastest first.
    pub(super) fn available(precision: Precision) -> impl Iterator<Item = Self> {
        let all: &[Self] = match precision {
            Precision::F32 => &[],
            Precision::Bf16 => &[Self::Avx512Bf16],
            Precision::Int16 => &[Self::Avx512Vnni, Self::Avx2],
        };
        all.iter().copied().filter(|pairs| pairs.is_available())
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use super::lanes::InstructionSet;
        match self {
            Self::Avx512Bf16 => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            Self::Avx512Vnni => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx2 => InstructionSet::Avx2.is_available(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        false
    }

    /// Columns of a panel: the sums of a tile's row.
    fn panel(self) -> usize {
        match self {
            Self::Avx512Bf16 | Self::Avx512Vnni => 3 * LANES,
            Self::Avx2 => LANES,
        }
    }
}

/// Packed 16-bit weights.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "16-bit kernels are of x86-64 so far"))]
#[derive(Debug)]
pub(super) struct NarrowWeights {
    pairs: Pairs,
    inputs: usize,
    /// Panels of up to [`NarrowWeights::panel`] columns; in each, `[inputs / 2][columns][2]`.
    panels: Buffer,
    /// int16: what a unit of each column is worth. Empty for bf16.
    column_scales: Vec<f32>,
}

/// Largest magnitude of a narrowed int16 input.
pub(super) const INPUT_LIMIT: f32 = 8191.0;

impl NarrowWeights {
    /// Packs `weights` (`outputs x inputs`, row-major). `pairs` must be available.
    pub(super) fn new(pairs: Pairs, weights: &[f32], inputs: usize, outputs: usize) -> std::io::Result<Self> {
        let mut panels = Buffer::zeroed(weights.len() * size_of::<u16>())?;
        let packed: &mut [u16] = bytemuck::cast_slice_mut(panels.as_bytes_mut());
        let column_scales = match pairs {
            Pairs::Avx512Bf16 => Vec::new(),
            Pairs::Avx512Vnni | Pairs::Avx2 => weights.chunks_exact(inputs).map(column_scale).collect(),
        };
        for first in (0..outputs).step_by(pairs.panel()) {
            let columns = pairs.panel().min(outputs - first);
            let panel = &mut packed[first * inputs..(first + columns) * inputs];
            for start in (0..inputs).step_by(LANES) {
                for column in 0..columns {
                    let from = (first + column) * inputs + start;
                    let inverse = column_scales.get(first + column).map(|scale| 1.0 / scale);
                    for (offset, weight) in weights[from..from + LANES].iter().enumerate() {
                        let k = start + offset;
                        panel[(k / 2 * columns + column) * 2 + k % 2] = match inverse {
                            Some(inverse) => (weight * inverse).round_ties_even() as i16 as u16,
                            None => half::bf16::from_f32(*weight).to_bits(),
                        };
                    }
                }
            }
        }
        Ok(Self { pairs, inputs, panels, column_scales })
    }

    /// Columns of a panel; the last one may have fewer.
    pub(super) fn panel(&self) -> usize {
        self.pairs.panel()
    }
}

/// The smallest scale with which a column's sums cannot overflow.
pub(super) fn column_scale(column: &[f32]) -> f32 {
    let largest = column.iter().fold(0.0f64, |largest, w| largest.max(f64::from(w.abs())));
    let total: f64 = column.iter().map(|w| f64::from(w.abs())).sum();
    // Rounding adds at most half a unit to each magnitude.
    let room = f64::from(i32::MAX) / f64::from(INPUT_LIMIT) - column.len() as f64;
    let scale = (largest / 32_766.0).max(total / room);
    if scale > 0.0 { scale as f32 * 1.000_001 } else { 1.0 }
}

/// Narrows the rows of `input` into `scratch`.
pub(super) fn narrow_rows(weights: &NarrowWeights, input: &[f32], scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    {
        assert!(weights.pairs.is_available(), "precision is checked when a model is loaded");
        scratch.rows.resize(input.len(), 0);
        scratch.scales.resize(input.len() / weights.inputs, 1.0);
        // SAFETY: the features were just checked.
        unsafe {
            match weights.pairs {
                Pairs::Avx512Bf16 => x86::narrow_bf16(input, &mut scratch.rows),
                Pairs::Avx512Vnni => x86::narrow_int16(input, weights.inputs, scratch),
                Pairs::Avx2 => x86::narrow_int16_avx2(input, weights.inputs, scratch),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (weights, input, scratch);
        unreachable!("16-bit precisions are refused on this processor when a model is loaded");
    }
}

/// Some columns, whole panels, of `input * weightsᵀ + bias`, with the rows that `scratch` holds.
pub(super) fn multiply(
    weights: &NarrowWeights,
    scratch: &Scratch,
    bias: &[f32],
    (columns, output): (Range<usize>, Output<'_>),
) {
    #[cfg(target_arch = "x86_64")]
    {
        assert!(weights.pairs.is_available(), "precision is checked when a model is loaded");
        let job = x86::Job { weights, bias, columns, output };
        // SAFETY: the features were just checked.
        unsafe {
            match weights.pairs {
                Pairs::Avx512Bf16 => x86::bf16_blocks(&job, scratch),
                Pairs::Avx512Vnni => x86::vnni_blocks(&job, scratch),
                Pairs::Avx2 => x86::avx2_blocks(&job, scratch),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (weights, scratch, bias, columns, output);
        unreachable!("16-bit precisions are refused on this processor when a model is loaded");
    }
}
