//! placeholder
use crate::error::Result;
use crate::run::Run;
/// x
pub fn markdown(_: &[Run]) -> Result<String> {
    Ok(String::new())
}
/// x
pub fn html(_: &[Run]) -> Result<String> {
    Ok(String::new())
}
