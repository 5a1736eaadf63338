#![allow(dead_code, unused_imports)]
//! temp
mod kernel;
pub use kernel::{InstructionSet, Precision};
