//! Zeroed memory on huge pages where the system has them: packed weights and spaces built in memory.

use memmap2::MmapMut;

/// A fixed amount of zeroed memory, aligned to a page.
#[derive(Debug)]
pub(crate) struct Buffer {
    map: MmapMut,
    length: usize,
}

impl Buffer {
    /// `length` zero bytes. Fails when the system has no memory left.
    pub(crate) fn zeroed(length: usize) -> std::io::Result<Self> {
        // An empty mapping is not allowed; the slice handed out has the right length all the same.
        let map = MmapMut::map_anon(length.max(1))?;
        // One translation entry then covers 2 MiB instead of 4 KiB. It is advice: without it all still works.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, length })
    }

    /// The memory as bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.map[..self.length]
    }

    /// The memory as writable bytes.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.length]
    }

    /// The memory as `f32`.
    pub(crate) fn as_f32(&self) -> &[f32] {
        bytemuck::cast_slice(self.as_bytes())
    }

    /// The memory as 16-bit numbers.
    pub(crate) fn as_u16(&self) -> &[u16] {
        bytemuck::cast_slice(self.as_bytes())
    }
}
