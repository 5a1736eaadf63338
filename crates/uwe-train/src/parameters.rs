//! The numbers that are trained: one flat list, with a name and a place for each tensor.

use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A tensor's place in the flat list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name in the weight file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where its entries stand.
    pub range: Range<usize>,
}

/// All tensors of a model as one flat list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// The numbers.
    pub values: Vec<f32>,
    /// The tensors in the order of their places.
    pub places: Vec<Place>,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

impl Parameters {
    /// Reads a weight file. Tensors that `order` names stand first and in that order, so that what is multiplied together lies
    /// together; then the others by name. Tensors of whole numbers are left out.
    ///
    /// # Errors
    /// [`Error::Weights`] for a damaged file, a missing tensor or a number that is not finite.
    pub fn read(path: &Path, order: &[String]) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |problem: String| Error::Weights { path: path.into(), problem };
        let tensors = safetensors::SafeTensors::deserialize(&bytes)
            .map_err(|error| wrong(format!("is no sound safetensors file: {error}")))?;
        let mut views: BTreeMap<String, TensorView<'_>> = tensors.tensors().into_iter().collect();
        // Models saved with a task's head carry the encoder under its name; it is kept under its own.
        for prefix in ["bert.", "mpnet.", "model."] {
            if views.contains_key(&format!("{prefix}embeddings.word_embeddings.weight")) {
                views = views
                    .into_iter()
                    .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_string(), view)))
                    .collect();
            }
        }
        let mut parameters = Self { values: Vec::new(), places: Vec::new() };
        for name in order {
            let view = views.remove(name).ok_or_else(|| wrong(format!("has no tensor `{name}`")))?;
            parameters.push(name, &view).map_err(&wrong)?;
        }
        for (name, view) in views {
            if matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                parameters.push(&name, &view).map_err(&wrong)?;
            }
        }
        Ok(parameters)
    }

    fn push(&mut self, name: &str, view: &TensorView<'_>) -> std::result::Result<(), String> {
        let start = self.values.len();
        let pairs = || view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match view.dtype() {
            Dtype::F32 => self
                .values
                .extend(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            Dtype::F16 => self.values.extend(pairs().map(|bits| half::f16::from_bits(bits).to_f32())),
            Dtype::BF16 => self.values.extend(pairs().map(|bits| half::bf16::from_bits(bits).to_f32())),
            other => {
                return Err(format!("tensor `{name}` has type {other:?}; f32, f16 and bf16 can be trained"));
            }
        }
        if self.values[start..].iter().any(|value| !value.is_finite()) {
            return Err(format!("tensor `{name}` holds a number that is not finite"));
        }
        let range = start..self.values.len();
        self.places.push(Place { name: name.into(), shape: view.shape().to_vec(), range });
        Ok(())
    }

    /// The place of a tensor.
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.name == name)
    }

    /// The tensors as a safetensors file: these numbers, or others of the same places, such as an optimiser's.
    ///
    /// # Errors
    /// [`Error::Weights`] when they cannot be written down.
    pub fn to_bytes(&self, values: &[f32], number_type: NumberType) -> Result<Vec<u8>> {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .places
            .iter()
            .map(|place| {
                let values = &values[place.range.clone()];
                let bytes = match number_type {
                    NumberType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    NumberType::F16 => {
                        values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
                    }
                };
                (place.name.clone(), place.shape.clone(), bytes)
            })
            .collect();
        let dtype = if number_type == NumberType::F32 { Dtype::F32 } else { Dtype::F16 };
        let mut views = Vec::with_capacity(data.len());
        let wrong = |problem: String| Error::Weights { path: "weights".into(), problem };
        for (name, shape, bytes) in &data {
            let view =
                TensorView::new(dtype, shape.clone(), bytes).map_err(|error| wrong(error.to_string()))?;
            views.push((name.clone(), view));
        }
        // transformers reads no weight file without this note.
        let note = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::serialize(views, Some(note)).map_err(|error| wrong(error.to_string()))
    }

    /// Becomes the mean of these numbers and those of other weight files with the same tensors. Trainings of one encoder that differ
    /// in their seed err in different directions; their mean errs less ("Model soups", arXiv 2203.05482).
    ///
    /// # Errors
    /// [`Error::Weights`] when a file has other tensors.
    pub fn average_with(&mut self, others: &[PathBuf]) -> Result<()> {
        let mut sums: Vec<f64> = self.values.iter().map(|value| f64::from(*value)).collect();
        for path in others {
            let values = self.values_of(path)?;
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value));
        }
        let count = (others.len() + 1) as f64;
        self.values.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum / count) as f32);
        Ok(())
    }

    /// Takes the numbers of a weight file that has all of these tensors, with these shapes.
    ///
    /// # Errors
    /// [`Error::Weights`] when it has not.
    pub fn values_of(&self, path: &Path) -> Result<Vec<f32>> {
        let order: Vec<String> = self.places.iter().map(|place| place.name.clone()).collect();
        let found = Self::read(path, &order)?;
        if found.places != self.places {
            return Err(Error::Weights { path: path.into(), problem: "has tensors of other shapes".into() });
        }
        Ok(found.values)
    }
}
