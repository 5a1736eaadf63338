//! Checkpoints: weights, moments and the place of a training in one file; and model folders for serving.

use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::parameters::{NumberType, Parameters};
use crate::sampler::Neighbours;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use uwe::{ModelFolder, Scoring};

/// Where a training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next step, from 0.
    pub step: u64,
    /// Best validation mean so far, and the step before which it was measured.
    pub best: Option<(f64, u64)>,
    /// Validations since then.
    pub since_best: usize,
}

/// Parts of a checkpoint file, by the prefix of their tensors; the last is there where weights are averaged.
const PARTS: [&str; 4] = ["weights/", "first/", "second/", "average/"];
const STATE: &str = "state";
/// What each skill of a graph brings, a row a skill; rows are filled up with [`NONE`].
const NEIGHBOURS: &str = "neighbours/";
const NONE: u32 = u32::MAX;

/// What a checkpoint holds.
pub(crate) struct Kept<'a> {
    pub(crate) parameters: &'a Parameters,
    pub(crate) optimizer: &'a Optimizer,
    /// Running mean of the weights; empty without.
    pub(crate) average: &'a [f32],
    /// What each skill brings; empty without.
    pub(crate) neighbours: &'a Neighbours,
    pub(crate) state: &'a State,
}

impl Kept<'_> {
    /// Writes the checkpoint, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let lists = [&self.parameters.values, &self.optimizer.first, &self.optimizer.second, self.average];
        let wrong = |problem: String| Error::Weights { path: path.into(), problem };
        let mut views = Vec::new();
        let bytes: Vec<Vec<u8>> = lists
            .iter()
            .filter(|values| !values.is_empty())
            .map(|values| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        for (part, bytes) in PARTS.iter().zip(&bytes) {
            for place in &self.parameters.places {
                let slice = &bytes[place.range.start * 4..place.range.end * 4];
                let view = TensorView::new(Dtype::F32, place.shape.clone(), slice);
                views
                    .push((format!("{part}{}", place.name), view.map_err(|error| wrong(error.to_string()))?));
            }
        }
        let tables: Vec<(&str, [usize; 2], Vec<u8>)> =
            self.neighbours.iter().map(|(graph, rows)| table(graph, rows)).collect();
        for (graph, shape, bytes) in &tables {
            let view = TensorView::new(Dtype::U32, shape.to_vec(), bytes);
            views.push((format!("{NEIGHBOURS}{graph}"), view.map_err(|error| wrong(error.to_string()))?));
        }
        let state = serde_json::to_string(self.state).map_err(|error| wrong(error.to_string()))?;
        let note = HashMap::from([(STATE.to_string(), state)]);
        let file = safetensors::serialize(views, Some(note)).map_err(|error| wrong(error.to_string()))?;
        Ok(workbench::write_whole(path, &file)?)
    }
}

/// Lists as a table of numbers.
fn table<'a>(graph: &'a str, rows: &[Vec<u32>]) -> (&'a str, [usize; 2], Vec<u8>) {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let filled = rows.iter().flat_map(|row| {
        let filling = std::iter::repeat_n(NONE, width - row.len());
        row.iter().copied().chain(filling)
    });
    (graph, [rows.len(), width], filled.flat_map(u32::to_le_bytes).collect())
}

/// Reads a checkpoint into parameters, optimiser and running mean; returns where its training stands and what each skill brings.
pub(crate) fn load(
    path: &Path,
    parameters: &mut Parameters,
    optimizer: &mut Optimizer,
    average: &mut Vec<f32>,
) -> Result<(State, Neighbours)> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let wrong = |problem: String| Error::Weights { path: path.into(), problem };
    let unsound = |error: safetensors::SafeTensorError| wrong(format!("is no sound checkpoint: {error}"));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(unsound)?;
    let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(unsound)?;
    let lists = [&mut parameters.values, &mut optimizer.first, &mut optimizer.second, average];
    for (part, values) in PARTS.iter().zip(lists).filter(|(_, values)| !values.is_empty()) {
        for place in &parameters.places {
            let view = tensors.tensor(&format!("{part}{}", place.name)).map_err(unsound)?;
            if view.dtype() != Dtype::F32 || view.shape() != place.shape {
                return Err(wrong(format!("`{part}{}` belongs to another model", place.name)));
            }
            let numbers = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            values[place.range.clone()].iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
        }
    }
    let mut neighbours = Neighbours::new();
    for (name, view) in tensors.iter() {
        let Some(graph) = name.strip_prefix(NEIGHBOURS) else { continue };
        let width = view.shape().get(1).copied().unwrap_or(1).max(1);
        let numbers = view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let numbers: Vec<u32> = numbers.collect();
        let row = |row: &[u32]| row.iter().copied().filter(|place| *place != NONE).collect();
        neighbours.insert(graph.into(), numbers.chunks(width).map(row).collect());
    }
    let state = metadata.metadata().as_ref().and_then(|note| note.get(STATE));
    let state = state.and_then(|state| serde_json::from_str(state).ok());
    let state = state.ok_or_else(|| wrong("does not say where its training stands".into()))?;
    Ok((state, neighbours))
}

/// How the name of a folder begins that is not yet whole.
const PARTIAL: &str = ".partial-";

/// Largest file that is taken over into an exported folder: a tokenizer is far smaller, weights in another form are larger.
const LARGEST_COPY: u64 = 16 << 20;

/// What a folder says of its training, for serving.
const SETTINGS: &str = "config_uwe.json";

/// Writes a folder that serves these weights: everything small of the folder that they started from, the scorer that they are to be
/// served with where one is given, and the weights.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written.
pub fn export(
    model: &Path,
    parameters: &Parameters,
    number_type: NumberType,
    scoring: Option<&Scoring>,
    to: &Path,
) -> Result<()> {
    let folder = ModelFolder::open(model)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let partial = tempfile::Builder::new()
        .prefix(PARTIAL)
        .tempdir_in(parent)
        .map_err(Error::io("create a folder in", parent))?;
    copy_small(model, partial.path())?;
    if let Some(scoring) = scoring {
        let file = partial.path().join(SETTINGS);
        let settings = serde_json::json!({ "scoring": scoring });
        std::fs::write(&file, format!("{settings:#}\n")).map_err(Error::io("write", &file))?;
    }
    let weights = folder.weights.strip_prefix(model).unwrap_or(Path::new("model.safetensors"));
    let file = partial.path().join(weights);
    std::fs::write(&file, parameters.to_bytes(&parameters.values, number_type)?)
        .map_err(Error::io("write", &file))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(partial.path(), readable).map_err(Error::io("open up", partial.path()))?;
    }
    // An older folder makes room at the last moment and is gone only when the new one stands.
    let old = parent.join(format!(".old-{}", to.file_name().unwrap_or_default().to_string_lossy()));
    let _ = std::fs::remove_dir_all(&old);
    if to.exists() {
        std::fs::rename(to, &old).map_err(Error::io("move", to))?;
    }
    std::fs::rename(partial.keep(), to).map_err(Error::io("rename a folder to", to))?;
    let _ = std::fs::remove_dir_all(&old);
    Ok(())
}

/// Removes what a killed training was writing.
pub(crate) fn clear_partial(run: &Path) {
    workbench::clear_partial(run);
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // Nobody misses what cannot be removed.
        if name.to_string_lossy().starts_with(PARTIAL) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What describes the model that a training started from, and not the one that it made; and what the tokenizer file holds once more.
const NOT_CARRIED: [&str; 4] = ["README.md", "data_config.json", "vocab.txt", "uwe-reference.safetensors"];

/// Copies a folder's small files, weights of any form and its description aside.
fn copy_small(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io("create", to))?;
    for path in workbench::sources::sorted_entries(from)? {
        let Some(name) = path.file_name() else { continue };
        let weights =
            path.extension().is_some_and(|kind| kind == "safetensors" || kind == "bin" || kind == "onnx");
        let text = name.to_string_lossy();
        if text.starts_with('.') || NOT_CARRIED.contains(&&*text) {
            continue;
        }
        if path.is_dir() {
            if name != "onnx" && name != "openvino" {
                copy_small(&path, &to.join(name))?;
            }
        } else if !weights && path.metadata().is_ok_and(|entry| entry.len() <= LARGEST_COPY) {
            std::fs::copy(&path, to.join(name)).map_err(Error::io("copy", &path))?;
        }
    }
    Ok(())
}
