#![allow(dead_code, unused_imports)]
//! temp
mod compute;
mod error;
mod kernel;
mod model;
mod text;
pub use compute::Compute;
pub use error::{Error, Result};
pub use kernel::{InstructionSet, Precision};
pub use model::*;
pub use text::*;
