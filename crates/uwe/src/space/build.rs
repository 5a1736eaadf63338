//! Building a space: encode in order of length, write panel by panel, rename when whole.

use super::format::{Data, Meta, Section, StateType, Writer, padded};
use super::source::Targets;
use super::{Space, block_bytes};
use crate::error::{Error, Result};
use crate::kernel::{Buffer, LANES, inverse_norm, mean_of_rows};
use crate::model::{Encoder, TokenStates};
use std::io::{Cursor, Seek, Write};
use std::path::{Path, PathBuf};

/// How a space is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// Number type of the stored states.
    pub states: StateType,
}

/// How far a build is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Targets that are encoded and written.
    pub done: usize,
    /// All targets.
    pub total: usize,
}

/// Panels that are encoded together; between two such chunks a build can be stopped.
const CHUNK: usize = 16;

/// Stands for the path of a space in memory.
const MEMORY: &str = "<memory>";

/// States of some targets, and one pooled vector of each.
type Chunk = (TokenStates, Vec<Vec<f32>>);

impl Space {
    /// Encodes `targets` and writes a space file.
    ///
    /// `progress` is called between chunks and returns whether to go on. The file appears whole or not at
    /// all: it is written beside `destination` under another name, synced and renamed. An older file at
    /// `destination` stays as it is until then, also for those who have it open.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty list, [`Error::Interrupted`] when `progress` says so,
    /// [`Error::Io`] when the place cannot be written.
    pub fn build(
        encoder: &Encoder,
        targets: &Targets,
        options: BuildOptions,
        destination: &Path,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Self> {
        let plan = Plan::new(encoder, targets, options, destination)?;
        let folder = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = destination.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::Argument {
            name: "space",
            problem: format!("{} names no file", destination.display()),
        })?;
        let prefix = format!(".{name}.partial-");
        remove_stale(folder, &prefix);
        let write = |action| Error::io(action, destination);
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // What `File::create` would give; a temporary file is private otherwise.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o644));
        }
        let partial = builder.prefix(&prefix).tempfile_in(folder).map_err(write("create a file beside"))?;
        // The lock tells a later build that this file is not left over from a killed one.
        partial.as_file().try_lock().map_err(|error| write("lock a file beside")(error.into()))?;
        let out = std::io::BufWriter::with_capacity(1 << 20, partial);
        let out = plan.write(out, encoder, targets, progress)?;
        let partial = out.into_inner().map_err(|error| write("write")(error.into_error()))?;
        partial.as_file().sync_all().map_err(write("sync"))?;
        partial.persist(destination).map_err(|error| write("rename a file to")(error.error))?;
        // The rename itself must outlive a power failure too.
        if let Ok(folder) = std::fs::File::open(folder) {
            let _ = folder.sync_all();
        }
        Self::open(destination)
    }

    /// Encodes `targets` into a space in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty list.
    pub fn in_memory(encoder: &Encoder, targets: &Targets, options: BuildOptions) -> Result<Self> {
        let plan = Plan::new(encoder, targets, options, Path::new(MEMORY))?;
        Self::from_bytes(plan.write(Cursor::new(Vec::new()), encoder, targets, &mut |_| true)?)
    }

    /// A space in memory over token states from elsewhere, pooled by their mean, with numbers for texts.
    ///
    /// `special_tokens` are the counts before and after each text's own tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no text, one without a token, or one too long.
    pub fn from_states(
        states: &TokenStates,
        special_tokens: (usize, usize),
        stored: StateType,
    ) -> Result<Self> {
        let dimension = states.dimension();
        Self::assemble(states, (special_tokens, stored), &|text| mean_of_rows(text, dimension))
    }

    /// [`Space::from_states`] with another pooling.
    pub(crate) fn assemble(
        states: &TokenStates,
        (special_tokens, stored): ((usize, usize), StateType),
        pool: &dyn Fn(&[f32]) -> Vec<f32>,
    ) -> Result<Self> {
        let mut targets = Targets::new("<token states>", &["id"]);
        for index in 0..states.len() {
            targets.push(&index.to_string(), Vec::new());
        }
        let mut lengths = Vec::with_capacity(states.len());
        for bounds in states.offsets().windows(2) {
            let length = u16::try_from(bounds[1] - bounds[0]).unwrap_or(0);
            if usize::from(length) < (special_tokens.0 + special_tokens.1).max(1) {
                return Err(Error::Argument {
                    name: "token states",
                    problem: "a text has no token, or too many".into(),
                });
            }
            lengths.push(length);
        }
        let meta = Meta {
            written_by: String::new(),
            model: String::new(),
            model_fingerprint: String::new(),
            tokenizer_fingerprint: String::new(),
            precision: String::new(),
            max_tokens: 0,
            special_tokens,
            states: stored,
            dimension: states.dimension(),
            targets: states.len(),
            columns: targets.columns().to_vec(),
            source: targets.source().to_string(),
            folded: 0,
            fingerprint: String::new(),
        };
        let plan = Plan::sorted(meta, lengths, Vec::new(), Path::new(MEMORY))?;
        let out = plan.write_all(Cursor::new(Vec::new()), &targets, &mut |chosen| {
            let (mut values, mut offsets, mut pooled) = (Vec::new(), vec![0], Vec::new());
            for index in chosen {
                values.extend_from_slice(states.text(*index));
                offsets.push(values.len() / states.dimension());
                pooled.push(pool(states.text(*index)));
            }
            Ok((TokenStates::new(values, offsets, states.dimension())?, pooled))
        });
        Self::from_bytes(out?)
    }

    /// Fingerprint of the space that these would build: of the model, the tokenizer, the options and all
    /// texts with their columns. Nothing is encoded.
    pub fn fingerprint(encoder: &Encoder, targets: &Targets, options: BuildOptions) -> String {
        meta(encoder, targets, options).fingerprint
    }

    fn from_bytes(out: Cursor<Vec<u8>>) -> Result<Self> {
        let (path, bytes) = (Path::new(MEMORY), out.into_inner());
        let mut buffer = Buffer::zeroed(bytes.len()).map_err(Error::io("allocate", path))?;
        buffer.as_bytes_mut().copy_from_slice(&bytes);
        Self::read(path, Data::Built(buffer))
    }
}

/// What a space of `targets` says about itself.
fn meta(encoder: &Encoder, targets: &Targets, options: BuildOptions) -> Meta {
    let info = encoder.info();
    let model = info.path.canonicalize().unwrap_or_else(|_| info.path.clone());
    let mut meta = Meta {
        written_by: format!("uwe {}", env!("CARGO_PKG_VERSION")),
        model: model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        model_fingerprint: info.fingerprint.clone(),
        tokenizer_fingerprint: encoder.tokenizer().fingerprint().to_string(),
        precision: encoder.options().precision.name().to_string(),
        max_tokens: encoder.tokenizer().max_tokens(),
        special_tokens: encoder.tokenizer().special_tokens(),
        states: options.states,
        dimension: info.dimension,
        targets: targets.len(),
        columns: targets.columns().to_vec(),
        source: targets.source().to_string(),
        folded: targets.folded(),
        fingerprint: String::new(),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::to_string(&meta).unwrap_or_default().as_bytes());
    for string in targets.strings() {
        hasher.update(&(string.len() as u64).to_le_bytes());
        hasher.update(string.as_bytes());
    }
    meta.fingerprint = hasher.finalize().to_hex()[..32].to_string();
    meta
}

/// Removes what builds that were killed left behind. A file that is locked belongs to a running one.
fn remove_stale(folder: &Path, prefix: &str) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let free = std::fs::File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if free {
            // Another build may have been quicker; either way it is gone.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Order and lengths, known before the first text is encoded.
struct Plan {
    /// Where the space goes, for errors.
    place: PathBuf,
    meta: Meta,
    /// Tokens of each target.
    lengths: Vec<u16>,
    /// Targets by length, then by index.
    order: Vec<u32>,
    truncated: Vec<u32>,
}

impl Plan {
    fn new(encoder: &Encoder, targets: &Targets, options: BuildOptions, place: &Path) -> Result<Self> {
        let (mut lengths, mut truncated) = (Vec::with_capacity(targets.len()), Vec::new());
        let texts: Vec<&str> = (0..targets.len()).map(|index| targets.text(index)).collect();
        for (start, part) in texts.chunks(4096).enumerate() {
            for (offset, tokens) in encoder.tokenize(part)?.into_iter().enumerate() {
                lengths.push(u16::try_from(tokens.ids.len()).map_err(|_| Error::Argument {
                    name: "max tokens",
                    problem: format!("a target may have at most {} tokens", u16::MAX),
                })?);
                if tokens.truncated {
                    truncated.push((start * 4096 + offset) as u32);
                }
            }
        }
        Self::sorted(meta(encoder, targets, options), lengths, truncated, place)
    }

    fn sorted(meta: Meta, lengths: Vec<u16>, truncated: Vec<u32>, place: &Path) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::Argument { name: "targets", problem: "there is no target to encode".into() });
        }
        let count = u32::try_from(lengths.len()).ok().filter(|count| *count < u32::MAX);
        let count = count.ok_or_else(|| Error::Argument {
            name: "targets",
            problem: format!("{} are more than a space can hold", lengths.len()),
        })?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(|target| (lengths[*target as usize], *target));
        Ok(Self { place: place.to_path_buf(), meta, lengths, order, truncated })
    }

    /// Encodes and writes all targets.
    fn write<W: Write + Seek>(
        &self,
        out: W,
        encoder: &Encoder,
        targets: &Targets,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<W> {
        let total = targets.len();
        let mut done = 0;
        let out = self.write_all(out, targets, &mut |chosen| {
            if !progress(Progress { done, total }) {
                return Err(Error::Interrupted);
            }
            let texts: Vec<&str> = chosen.iter().map(|index| targets.text(*index)).collect();
            let states = encoder.encode(&texts)?.states;
            let pooled = (0..states.len()).map(|index| encoder.pool(states.text(index))).collect();
            done += chosen.len();
            Ok((states, pooled))
        })?;
        // Ctrl-C during the last chunk counts as well: nothing has been renamed yet.
        if progress(Progress { done, total }) { Ok(out) } else { Err(Error::Interrupted) }
    }

    /// Writes the file; `encode` gives the states of some targets.
    fn write_all<W: Write + Seek>(
        &self,
        out: W,
        targets: &Targets,
        encode: &mut dyn FnMut(&[usize]) -> Result<Chunk>,
    ) -> Result<W> {
        let failed = |error| Error::io("write", &self.place)(error);
        let mut writer = self.write_texts(out, targets).map_err(failed)?;
        let (mut pooled_blocks, mut table, mut offset) = (Vec::new(), Vec::new(), 0u64);
        for slots in self.order.chunks(CHUNK * LANES) {
            let chosen: Vec<usize> = slots.iter().map(|target| *target as usize).collect();
            let (states, pooled) = encode(&chosen)?;
            for first in (0..chosen.len()).step_by(LANES) {
                let lanes = first..(first + LANES).min(chosen.len());
                let texts: Vec<&[f32]> = lanes.clone().map(|index| states.text(index)).collect();
                let block = self.block(&texts);
                let positions = texts.iter().map(|text| text.len() / self.meta.dimension).max().unwrap_or(0);
                writer.write(&block).map_err(failed)?;
                table.extend(offset.to_le_bytes());
                table.extend((positions as u32).to_le_bytes());
                table.extend(crc32fast::hash(&block).to_le_bytes());
                offset += block.len() as u64;
                let pooled: Vec<&[f32]> = lanes.map(|index| &pooled[index][..]).collect();
                pooled_blocks.extend(self.block(&pooled));
            }
        }
        let finish = || {
            writer.end(Section::States)?;
            writer.write(&pooled_blocks)?;
            writer.end(Section::Pooled)?;
            writer.write(&table)?;
            writer.end(Section::Panels)?;
            writer.finish()
        };
        finish().map_err(failed)
    }

    /// Everything before the token states.
    fn write_texts<W: Write + Seek>(&self, out: W, targets: &Targets) -> std::io::Result<Writer<W>> {
        let mut writer = Writer::new(out)?;
        writer.write(&serde_json::to_vec(&self.meta)?)?;
        writer.end(Section::Meta)?;
        let mut end = 0u64;
        writer.write(&end.to_le_bytes())?;
        for string in targets.strings() {
            end += string.len() as u64;
            writer.write(&end.to_le_bytes())?;
        }
        for string in targets.strings() {
            writer.write(string.as_bytes())?;
        }
        writer.end(Section::Strings)?;
        let slots = self.order.len().next_multiple_of(LANES);
        let mut order = self.order.clone();
        let mut lengths: Vec<u16> = order.iter().map(|target| self.lengths[*target as usize]).collect();
        order.resize(slots, u32::MAX);
        lengths.resize(slots, 0);
        writer.write(bytemuck::cast_slice(&order))?;
        writer.end(Section::Order)?;
        writer.write(bytemuck::cast_slice(&lengths))?;
        writer.end(Section::Lengths)?;
        writer.write(bytemuck::cast_slice(&self.truncated))?;
        writer.end(Section::Truncated)?;
        Ok(writer)
    }

    /// The block of up to sixteen texts: 1 / norms by position and lane, then states by position, dimension
    /// and lane. Norms are those of the stored numbers, so that a stored state has cosine 1 with itself.
    fn block(&self, texts: &[&[f32]]) -> Vec<u8> {
        let dimension = self.meta.dimension;
        let positions = texts.iter().map(|text| text.len() / dimension).max().unwrap_or(0);
        let mut norms = vec![0.0f32; positions * LANES];
        let mut states = vec![0.0f32; positions * dimension * LANES];
        for (lane, text) in texts.iter().enumerate() {
            for (position, state) in text.chunks_exact(dimension).enumerate() {
                let stored: Vec<f32> = match self.meta.states {
                    // Beyond the largest half-precision number comes infinity; that number is nearer.
                    StateType::F16 => state
                        .iter()
                        .map(|x| half::f16::from_f32(x.clamp(-65_504.0, 65_504.0)).to_f32())
                        .collect(),
                    StateType::F32 => state.to_vec(),
                };
                norms[position * LANES + lane] = inverse_norm(&stored);
                for (k, value) in stored.into_iter().enumerate() {
                    states[(position * dimension + k) * LANES + lane] = value;
                }
            }
        }
        let mut block: Vec<u8> = bytemuck::cast_slice(&norms).to_vec();
        match self.meta.states {
            StateType::F16 => {
                let halves: Vec<half::f16> = states.into_iter().map(half::f16::from_f32).collect();
                block.extend_from_slice(bytemuck::cast_slice(&halves));
            }
            StateType::F32 => block.extend_from_slice(bytemuck::cast_slice(&states)),
        }
        block.resize(block_bytes(positions, dimension, self.meta.states), 0);
        debug_assert_eq!(block.len(), padded(block.len()));
        block
    }
}
