//! Target spaces: texts that are encoded once and ranked against many times.
//!
//! A space is one file, opened by mapping it. Token states lie in it as the scoring kernel reads them:
//! panels of sixteen targets of nearly the same length (see [`crate::kernel`]). Every byte is covered by a
//! checksum; those of the token states are compared when a panel is first used, so that opening takes
//! milliseconds and no damaged number is ever scored.

mod build;
mod format;
mod source;

pub use build::{BuildOptions, Progress};
pub use format::{Meta, StateType};
pub use source::{Columns, Format, Lines, Pillar, Targets};

use crate::error::{Error, Result};
use crate::kernel::{LANES, PanelView, Ranges, States};
use crate::model::Encoder;
use format::{Data, Layout, Section};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// An open target space.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    data: Data,
    layout: Layout,
    meta: Meta,
    /// Whether a panel's checksum has been compared.
    checked: Vec<AtomicBool>,
}

/// One target of a space.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    space: &'a Space,
    index: usize,
}

/// Row of the panel table.
struct Panel {
    offset: usize,
    positions: usize,
    crc: u32,
}

impl Space {
    /// Opens a space file.
    ///
    /// # Errors
    /// [`Error::Space`] when the file is damaged or no space file, [`Error::Io`] when it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        if length == 0 {
            return Err(Error::space(path, "is empty"));
        }
        // SAFETY: space files are replaced by renaming a new file over them and never written in place, so
        // the mapped bytes stay as they are (docs/format.md; docs/security.md says what happens otherwise).
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Self::read(path, Data::Mapped(map))
    }

    fn read(path: &Path, data: Data) -> Result<Self> {
        let layout = Layout::read(data.bytes(), path)?;
        let meta: Meta = serde_json::from_slice(&data.bytes()[layout.range(Section::Meta)])
            .map_err(|error| Error::space(path, format!("has metadata that cannot be read: {error}")))?;
        let panels = meta.targets.div_ceil(LANES);
        let checked = (0..panels).map(|_| AtomicBool::new(false)).collect();
        let space = Self { path: path.to_path_buf(), data, layout, meta, checked };
        space.check_structure()?;
        Ok(space)
    }

    /// Checks that every length and offset fits, so that later reads cannot go astray even in a file whose
    /// checksums were forged.
    fn check_structure(&self) -> Result<()> {
        let Meta { targets, dimension, states, ref columns, special_tokens, .. } = self.meta;
        let wrong =
            |what: &str| Err(Error::space(&self.path, format!("has {what} that do not fit together")));
        let panels = self.panel_count();
        let slots = panels * LANES;
        let lengths: &[u16] = self.section(Section::Lengths)?;
        let order: &[u32] = self.section(Section::Order)?;
        if targets == 0 || dimension == 0 || columns.first().is_none_or(|name| name != "text") {
            return wrong("metadata");
        }
        if lengths.len() != slots || order.len() != slots {
            return wrong("order and lengths");
        }
        let mut seen = vec![false; targets];
        for (slot, (target, length)) in order.iter().zip(lengths).enumerate() {
            let place = seen.get_mut(*target as usize);
            let sound = match place {
                Some(seen) => !std::mem::replace(seen, true) && *length > 0,
                None => slot >= targets && *target == u32::MAX && *length == 0,
            };
            if !sound {
                return wrong("order and lengths");
            }
        }
        let block = |positions: usize| block_bytes(positions, dimension, states);
        if self.layout.range(Section::Pooled).len() != panels * block(1)
            || self.layout.range(Section::Panels).len() != panels * 16
        {
            return wrong("panels");
        }
        let mut expected = 0;
        for panel in 0..panels {
            let Panel { offset, positions, .. } = self.panel_entry(panel);
            let longest = lengths[panel * LANES..(panel + 1) * LANES].iter().max().copied().unwrap_or(0);
            if offset != expected || positions != usize::from(longest) {
                return wrong("panels");
            }
            expected += block(positions);
        }
        if self.layout.range(Section::States).len() != expected {
            return wrong("panels");
        }
        let strings = self.layout.range(Section::Strings).len();
        let count = targets * columns.len();
        let offsets = self.string_offsets();
        let texts = strings.checked_sub(padded_offsets(count));
        let ends_fit = offsets.is_some_and(|offsets| {
            offsets.is_sorted() && offsets[0] == 0 && offsets.last().copied() == texts.map(|t| t as u64)
        });
        let all_valid = ends_fit && (0..count).all(|index| self.string(index).is_some());
        if !all_valid {
            return wrong("strings");
        }
        let shortest = lengths.iter().filter(|length| **length > 0).min().copied().unwrap_or(0);
        if usize::from(shortest) < special_tokens.0 + special_tokens.1 {
            return wrong("lengths and special tokens");
        }
        Ok(())
    }

    /// Compares every checksum of the file.
    ///
    /// # Errors
    /// [`Error::Space`] names the first damaged section or panel.
    pub fn verify(&self) -> Result<()> {
        for panel in 0..self.panel_count() {
            self.panel(panel, true)?;
        }
        for section in Section::ALL {
            self.layout.check(section, self.data.bytes(), &self.path)?;
        }
        Ok(())
    }

    /// Checks that the space was built with this model and tokenizer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] with both fingerprints.
    pub fn fits(&self, encoder: &Encoder) -> Result<()> {
        let parts = [
            ("weights", &self.meta.model_fingerprint, &encoder.info().fingerprint[..]),
            ("tokenizer", &self.meta.tokenizer_fingerprint, encoder.tokenizer().fingerprint()),
        ];
        for (part, space, model) in parts {
            if space != model {
                return Err(Error::Mismatch {
                    path: self.path.clone(),
                    part,
                    space: space.clone(),
                    model: model.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The file, or a name in angle brackets for a space in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What built the space.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Number of targets.
    pub fn len(&self) -> usize {
        self.meta.targets
    }

    /// Always false: an empty space cannot be built.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the space in bytes.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// Ascending indices of the targets whose text was cut at the token limit.
    pub fn truncated(&self) -> &[u32] {
        self.section(Section::Truncated).unwrap_or(&[])
    }

    /// Total number of target tokens.
    pub fn tokens(&self) -> usize {
        self.lengths().iter().map(|length| usize::from(*length)).sum()
    }

    /// Target `index`, or `None` beyond the end.
    pub fn target(&self, index: usize) -> Option<Target<'_>> {
        (index < self.len()).then_some(Target { space: self, index })
    }

    /// All targets in their order.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = Target<'_>> {
        (0..self.len()).map(|index| Target { space: self, index })
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.checked.len()
    }

    /// Target index of each slot; a slot is `panel * 16 + lane`.
    pub(crate) fn order(&self) -> &[u32] {
        self.section(Section::Order).unwrap_or(&[])
    }

    fn lengths(&self) -> &[u16] {
        self.section(Section::Lengths).unwrap_or(&[])
    }

    fn section<T: bytemuck::AnyBitPattern>(&self, section: Section) -> Result<&[T]> {
        bytemuck::try_cast_slice(&self.data.bytes()[self.layout.range(section)])
            .map_err(|_| Error::space(&self.path, "has a section of broken length"))
    }

    fn panel_entry(&self, panel: usize) -> Panel {
        let at = self.layout.range(Section::Panels).start + panel * 16;
        let row = &self.data.bytes()[at..at + 16];
        let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let offset = u64::from(word(0)) | u64::from(word(4)) << 32;
        Panel { offset: offset as usize, positions: word(8) as usize, crc: word(12) }
    }

    /// Token states of a panel. The first call for a panel compares its checksum.
    pub(crate) fn panel(&self, panel: usize, special_tokens: bool) -> Result<(PanelView<'_>, Ranges)> {
        let Panel { offset, positions, crc } = self.panel_entry(panel);
        let start = self.layout.range(Section::States).start + offset;
        let length = block_bytes(positions, self.meta.dimension, self.meta.states);
        let block = &self.data.bytes()[start..start + length];
        if !self.checked[panel].load(Ordering::Relaxed) {
            if crc32fast::hash(block) != crc {
                return Err(Error::space(
                    &self.path,
                    format!("has damaged token states in panel {panel} (its checksum does not match)"),
                ));
            }
            self.checked[panel].store(true, Ordering::Relaxed);
        }
        let (before, after) = if special_tokens { (0, 0) } else { self.meta.special_tokens };
        let lengths = &self.lengths()[panel * LANES..(panel + 1) * LANES];
        let ranges = std::array::from_fn(|lane| match lengths[lane] {
            0 => (0, 0),
            length => (before as u16, length - after as u16),
        });
        Ok((self.view(block, positions), ranges))
    }

    /// Pooled states of a panel.
    pub(crate) fn pooled_panel(&self, panel: usize) -> (PanelView<'_>, Ranges) {
        let length = block_bytes(1, self.meta.dimension, self.meta.states);
        let start = self.layout.range(Section::Pooled).start + panel * length;
        let lengths = &self.lengths()[panel * LANES..(panel + 1) * LANES];
        let ranges = std::array::from_fn(|lane| (0, u16::from(lengths[lane] > 0)));
        (self.view(&self.data.bytes()[start..start + length], 1), ranges)
    }

    fn view<'a>(&self, block: &'a [u8], positions: usize) -> PanelView<'a> {
        let (norms, states) = block.split_at(positions * LANES * 4);
        let count = positions * self.meta.dimension * LANES;
        let states = match self.meta.states {
            StateType::F16 => States::F16(&bytemuck::cast_slice(states)[..count]),
            StateType::F32 => States::F32(&bytemuck::cast_slice(states)[..count]),
        };
        PanelView { states, inverse_norms: bytemuck::cast_slice(norms) }
    }

    /// Token states of one target (or its pooled state), `tokens x dimension`.
    pub(crate) fn states_of(&self, target: usize, pooled: bool) -> Result<Vec<f32>> {
        let slot = self.order().iter().position(|index| *index as usize == target);
        let slot = slot.ok_or_else(|| Error::Argument {
            name: "target",
            problem: format!("{target} is beyond the {} targets", self.len()),
        })?;
        let (panel, lane) = (slot / LANES, slot % LANES);
        let (view, ranges) = if pooled { self.pooled_panel(panel) } else { self.panel(panel, true)? };
        let tokens = usize::from(ranges[lane].1);
        let entries = (0..tokens * self.meta.dimension).map(|entry| entry * LANES + lane);
        Ok(match view.states {
            States::F16(states) => entries.map(|at| half::f16::from_bits(states[at]).to_f32()).collect(),
            States::F32(states) => entries.map(|at| states[at]).collect(),
        })
    }

    fn string_offsets(&self) -> Option<&[u64]> {
        let count = self.meta.targets.checked_mul(self.meta.columns.len())?.checked_add(1)?;
        let bytes = &self.data.bytes()[self.layout.range(Section::Strings)];
        bytemuck::try_cast_slice(bytes.get(..count.checked_mul(8)?)?).ok()
    }

    /// String `column * targets + target`; `None` when it is not valid UTF-8.
    fn string(&self, index: usize) -> Option<&str> {
        let offsets = self.string_offsets()?;
        let count = self.meta.targets * self.meta.columns.len();
        let bytes = &self.data.bytes()[self.layout.range(Section::Strings)];
        let texts = bytes.get(padded_offsets(count)..)?;
        std::str::from_utf8(texts.get(*offsets.get(index)? as usize..*offsets.get(index + 1)? as usize)?).ok()
    }
}

/// Bytes of the offsets in front of `count` strings.
fn padded_offsets(count: usize) -> usize {
    (count + 1) * 8
}

/// Bytes of a block: 1 / norms, then states, padded.
fn block_bytes(positions: usize, dimension: usize, states: StateType) -> usize {
    format::padded(positions * LANES * 4 + positions * dimension * LANES * states.bytes())
}

impl<'a> Target<'a> {
    /// Index of the target in its space.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The text that was encoded.
    pub fn text(&self) -> &'a str {
        self.column(0)
    }

    /// The identifier, such as an ESCO URI, where the source had one.
    pub fn id(&self) -> Option<&'a str> {
        self.field("id").filter(|id| !id.is_empty())
    }

    /// A further column by its name.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        let column = self.space.meta.columns.iter().position(|column| column == name)?;
        Some(self.column(column))
    }

    fn column(&self, column: usize) -> &'a str {
        // All strings were checked when the space was opened.
        self.space.string(column * self.space.len() + self.index).unwrap_or_default()
    }
}
