//! Weight files: safetensors, checked before a number is used.

use crate::error::{Error, Result};
use crate::kernel::Buffer;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// An open weight file.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    map: Mmap,
}

/// The tensors of a weight file. Every one that is handed out is checked and counted into the fingerprint.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    prefix: String,
}

impl WeightFile {
    /// Maps the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the map is read here and dropped when the model is loaded. A file that another process
        // changes meanwhile gives wrong numbers, as it would with `read`; one that it shortens ends the
        // process. Model folders are not changed in place (docs/security.md says so).
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// Reads the header, which must fit the file exactly.
    pub(crate) fn tensors(&self) -> Result<Tensors<'_>> {
        let tensors = SafeTensors::deserialize(&self.map).map_err(|error| {
            let hint = if self.map.starts_with(b"PK\x03\x04") || self.map.starts_with(b"\x80") {
                "this is a pickled file under another name; convert it to safetensors"
            } else {
                "the file is cut off or damaged; get it again"
            };
            Error::model(&self.path, format!("is no sound safetensors file: {error}"), hint)
        })?;
        // Models saved with a task's head carry the encoder under its name.
        let prefix = ["", "bert.", "mpnet.", "model."]
            .into_iter()
            .find(|prefix| tensors.tensor(&format!("{prefix}embeddings.word_embeddings.weight")).is_ok())
            .unwrap_or_default();
        Ok(Tensors { path: &self.path, tensors, prefix: prefix.to_string() })
    }
}

/// A tensor as it is stored.
#[derive(Debug)]
pub(crate) struct Tensor<'a> {
    path: &'a Path,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Tensors<'a> {
    /// The tensor `name`, which must have this shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
        let full = format!("{}{name}", self.prefix);
        let wrong =
            |problem: String| Error::Weights { path: self.path.into(), tensor: full.clone(), problem };
        let view = self.tensors.tensor(&full).map_err(|_| wrong("is missing".into()))?;
        if view.shape() != shape {
            return Err(wrong(format!("has shape {:?}; the configuration asks for {shape:?}", view.shape())));
        }
        if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(wrong(format!("has type {:?}; f32, f16 and bf16 can be served", view.dtype())));
        }
        Ok(Tensor {
            path: self.path,
            name: full,
            dtype: view.dtype(),
            shape: shape.to_vec(),
            bytes: view.data(),
        })
    }
}

impl Tensor<'_> {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Name of the stored type: `f32`, `f16` or `bf16`.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.dtype {
            Dtype::F16 => "f16",
            Dtype::BF16 => "bf16",
            _ => "f32",
        }
    }

    /// The entries as `f32`, all finite.
    pub(crate) fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.append_to(&mut values)?;
        Ok(values)
    }

    /// Appends the entries as `f32`, all finite.
    pub(crate) fn append_to(&self, values: &mut Vec<f32>) -> Result<()> {
        let start = values.len();
        widen(self.dtype, self.bytes, values);
        self.check(&values[start..], 0)
    }

    /// The tensor as a table of rows in its stored type, all entries finite.
    pub(crate) fn to_table(&self) -> Result<Table> {
        let width = self.shape.last().copied().unwrap_or(1);
        let row_bytes = width * self.bytes.len() / self.len().max(1);
        let mut buffer =
            Buffer::zeroed(self.bytes.len()).map_err(Error::io("allocate memory for", self.path))?;
        buffer.as_bytes_mut().copy_from_slice(self.bytes);
        let table = Table { dtype: self.dtype, row_bytes, buffer };
        let mut row = Vec::with_capacity(width);
        for (index, bytes) in self.bytes.chunks(row_bytes.max(1)).enumerate() {
            row.clear();
            widen(self.dtype, bytes, &mut row);
            self.check(&row, index * width)?;
        }
        Ok(table)
    }

    /// Fails where one of these entries, the first of which is number `first` of the tensor, is not finite.
    fn check(&self, values: &[f32], first: usize) -> Result<()> {
        // Without an early end the compiler looks at several at once.
        if !values.iter().fold(false, |found, value| found | !value.is_finite()) {
            return Ok(());
        }
        let at = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err(Error::Weights {
            path: self.path.into(),
            tensor: self.name.clone(),
            problem: format!("holds {} at entry {}", values[at], first + at),
        })
    }

    /// Counts name, type, shape and content into a fingerprint.
    pub(crate) fn fingerprint(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{} {} {:?}\n", self.name, self.type_name(), self.shape).as_bytes());
        hasher.update_rayon(self.bytes);
    }
}

/// Rows that are widened when they are read: the word table, of which a text needs a few rows.
#[derive(Debug)]
pub(crate) struct Table {
    dtype: Dtype,
    row_bytes: usize,
    buffer: Buffer,
}

impl Table {
    /// Writes row `index` as `f32` into `row`. `index` must be below the number of rows.
    pub(crate) fn read(&self, index: usize, row: &mut Vec<f32>) {
        row.clear();
        widen(self.dtype, &self.buffer.as_bytes()[index * self.row_bytes..(index + 1) * self.row_bytes], row);
    }
}

/// Appends the numbers in `bytes` to `values`.
fn widen(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    /// Numbers at a time: they stay in the first-level cache.
    const BLOCK: usize = 1024;
    let mut bits = [0u16; BLOCK];
    match dtype {
        Dtype::F16 | Dtype::BF16 => {
            for block in bytes.chunks(2 * BLOCK) {
                let bits = &mut bits[..block.len() / 2];
                for (bits, pair) in bits.iter_mut().zip(block.chunks_exact(2)) {
                    *bits = u16::from_le_bytes([pair[0], pair[1]]);
                }
                let start = values.len();
                values.resize(start + bits.len(), 0.0);
                match dtype {
                    Dtype::F16 => {
                        bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(&mut values[start..])
                    }
                    _ => bits.reinterpret_cast::<half::bf16>().convert_to_f32_slice(&mut values[start..]),
                }
            }
        }
        _ => values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
    }
}
