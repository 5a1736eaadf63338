//! Sixteen lanes on 64-bit ARM: four vectors of NEON, which every such processor has.

use super::Lanes;
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// Sixteen lanes, the first four in the first vector.
type Four = [float32x4_t; 4];

/// One operation on each of the four vectors.
macro_rules! each {
    ($part:ident => $value:expr) => {
        // SAFETY: NEON is a part of every processor that this file is compiled for; what pointers must be valid for, the
        // callers of `load`, `load_f16` and `store` promise.
        unsafe {
            [
                {
                    let $part = 0;
                    $value
                },
                {
                    let $part = 1;
                    $value
                },
                {
                    let $part = 2;
                    $value
                },
                {
                    let $part = 3;
                    $value
                },
            ]
        }
    };
}

impl Lanes for Neon {
    type V = Four;
    // Of 32 registers, 20 hold sums and 4 a vector of weights or states. With six rows the compiler runs out of them.
    const TILE_COLUMNS: usize = 1;
    const TILE_ROWS: usize = 5;
    const TILE_TOKENS: usize = 5;
    const TILE_POSITIONS: usize = 1;

    #[inline(always)]
    fn splat(value: f32) -> Four {
        each!(_part => vdupq_n_f32(value))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Four {
        each!(part => vld1q_f32(from.add(4 * part)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Four {
        each!(part => vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(4 * part)))))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Four) {
        each!(part => vst1q_f32(to.add(4 * part), value[part]));
    }
    #[inline(always)]
    fn fma(a: Four, b: Four, c: Four) -> Four {
        each!(part => vfmaq_f32(c[part], a[part], b[part]))
    }
    #[inline(always)]
    fn add(a: Four, b: Four) -> Four {
        each!(part => vaddq_f32(a[part], b[part]))
    }
    #[inline(always)]
    fn sub(a: Four, b: Four) -> Four {
        each!(part => vsubq_f32(a[part], b[part]))
    }
    #[inline(always)]
    fn mul(a: Four, b: Four) -> Four {
        each!(part => vmulq_f32(a[part], b[part]))
    }
    #[inline(always)]
    fn div(a: Four, b: Four) -> Four {
        each!(part => vdivq_f32(a[part], b[part]))
    }
    // Not `vmaxq_f32` and `vminq_f32`, which give NaN where either is NaN.
    #[inline(always)]
    fn max(a: Four, b: Four) -> Four {
        each!(part => vbslq_f32(vcgtq_f32(a[part], b[part]), a[part], b[part]))
    }
    #[inline(always)]
    fn min(a: Four, b: Four) -> Four {
        each!(part => vbslq_f32(vcltq_f32(a[part], b[part]), a[part], b[part]))
    }
    #[inline(always)]
    fn select_less(a: Four, b: Four, yes: Four, no: Four) -> Four {
        each!(part => vbslq_f32(vcltq_f32(a[part], b[part]), yes[part], no[part]))
    }
    #[inline(always)]
    fn scale_by_power(value: Four, shifted: Four) -> Four {
        each!(part => {
            let power = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted[part]));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(value[part]), power))
        })
    }
}
