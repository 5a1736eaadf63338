//! Where a training runs.

use crate::error::{Error, Result};
use crate::threads::Threads;

/// The threads of the processor and, where there is one, a device for the passes through encoder and scores.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The threads.
    pub threads: Threads,
    /// The device.
    #[cfg(feature = "device")]
    pub device: Option<crate::device::Device>,
}

impl From<Threads> for Machine {
    fn from(threads: Threads) -> Self {
        Self {
            threads,
            #[cfg(feature = "device")]
            device: None,
        }
    }
}

impl Machine {
    /// With a device by name, whose matrix products take factors rounded to bfloat16 if `mixed`.
    ///
    /// # Errors
    /// [`Error::Recipe`] when this build has no such device.
    #[cfg(feature = "device")]
    pub fn with_device(threads: Threads, name: &str, mixed: bool) -> Result<Self> {
        let device = crate::device::Device::named(name, mixed)
            .map_err(|problem| Error::Recipe { what: "device".into(), problem })?;
        Ok(Self { threads, device: Some(device) })
    }

    /// With a device by name, whose matrix products take factors rounded to bfloat16 if `mixed`.
    ///
    /// # Errors
    /// [`Error::Recipe`]: this build has none.
    #[cfg(not(feature = "device"))]
    pub fn with_device(_: Threads, name: &str, _: bool) -> Result<Self> {
        let problem = format!("this build has no `{name}`; build with `--features cuda` for NVIDIA's GPUs");
        Err(Error::Recipe { what: "device".into(), problem })
    }
}
