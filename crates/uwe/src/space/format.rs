//! The space file: header, section table, checksums. docs/format.md describes it to the byte.

use crate::error::{Error, Result};
use crate::kernel::Buffer;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

pub(super) const MAGIC: [u8; 8] = *b"UWESPACE";
pub(super) const VERSION: u32 = 1;
/// Sections and panels start at multiples of this, and are padded with zeros to it.
pub(super) const ALIGNMENT: usize = 64;
const HEADER: usize = 24;
const ENTRY: usize = 24;

/// The sections, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// What built the space: [`Meta`] as JSON.
    Meta,
    /// Texts, ids and further columns.
    Strings,
    /// Target index of each slot (u32); empty lanes hold `u32::MAX`.
    Order,
    /// Token count of each slot (u16); 0 for an empty lane.
    Lengths,
    /// Ascending indices of the targets whose text was cut (u32).
    Truncated,
    /// Token states, a block a panel.
    States,
    /// Pooled states, a block of one position a panel.
    Pooled,
    /// Offset within `States` (u64), positions (u32) and CRC (u32) of each panel.
    Panels,
}

impl Section {
    pub(super) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Strings,
        Self::Order,
        Self::Lengths,
        Self::Truncated,
        Self::States,
        Self::Pooled,
        Self::Panels,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Strings => "strings",
            Self::Order => "order",
            Self::Lengths => "lengths",
            Self::Truncated => "truncated",
            Self::States => "states",
            Self::Pooled => "pooled",
            Self::Panels => "panels",
        }
    }
}

/// What built a space, and how. Holds nothing that changes from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of this crate that wrote the file.
    pub written_by: String,
    /// Name of the model's folder, for people.
    pub model: String,
    /// Fingerprint of the model's weights.
    pub model_fingerprint: String,
    /// Fingerprint of the tokenizer.
    pub tokenizer_fingerprint: String,
    /// Precision of the encoder that built it.
    pub precision: String,
    /// Most tokens of a target, special tokens included.
    pub max_tokens: usize,
    /// Special tokens before and after a target's own.
    pub special_tokens: (usize, usize),
    /// Number type of stored states.
    pub states: StateType,
    /// Width of a token state.
    pub dimension: usize,
    /// Number of targets.
    pub targets: usize,
    /// Names of the columns kept of each target: `text`, `id`, then the further ones.
    pub columns: Vec<String>,
    /// Where the targets came from, for people.
    pub source: String,
    /// Targets that repeated an earlier text and were folded into it.
    pub folded: usize,
    /// Fingerprint of all of the above and of every string.
    pub fingerprint: String,
}

/// Number type of stored token states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// Half precision: half the size, scores within about 1e-3 of f32.
    #[default]
    F16,
    /// Single precision.
    F32,
}

impl StateType {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// `length`, rounded up to the alignment.
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

fn header_length() -> usize {
    padded(HEADER + Section::ALL.len() * ENTRY + 4)
}

/// Writes a space file front to back; the header comes last.
pub(super) struct Writer<W> {
    out: W,
    position: u64,
    crc: crc32fast::Hasher,
    sections: Vec<(u32, u64, u64)>,
    started: u64,
}

impl<W: Write + Seek> Writer<W> {
    pub(super) fn new(mut out: W) -> std::io::Result<Self> {
        out.write_all(&vec![0; header_length()])?;
        let position = header_length() as u64;
        Ok(Self { out, position, crc: crc32fast::Hasher::new(), sections: Vec::new(), started: position })
    }

    /// Appends to the current section.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        self.crc.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Ends the current section; sections come in the order of [`Section::ALL`].
    pub(super) fn end(&mut self, section: Section) -> std::io::Result<()> {
        debug_assert_eq!(Section::ALL[self.sections.len()], section);
        let length = self.position - self.started;
        let padding = padded(length as usize) - length as usize;
        self.write(&[0; ALIGNMENT][..padding])?;
        let crc = std::mem::take(&mut self.crc).finalize();
        self.sections.push((crc, self.started, length));
        self.started = self.position;
        Ok(())
    }

    /// Writes the header and gives the file back.
    pub(super) fn finish(mut self) -> std::io::Result<W> {
        let mut header = Vec::with_capacity(header_length());
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.sections.len() as u32).to_le_bytes());
        header.extend(self.position.to_le_bytes());
        for (kind, (crc, offset, length)) in self.sections.iter().enumerate() {
            header.extend((kind as u32 + 1).to_le_bytes());
            header.extend(crc.to_le_bytes());
            header.extend(offset.to_le_bytes());
            header.extend(length.to_le_bytes());
        }
        header.resize(header_length() - 4, 0);
        let crc = crc32fast::hash(&header);
        header.extend(crc.to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The bytes of a space, from a file or built in memory.
#[derive(Debug)]
pub(super) enum Data {
    Mapped(Mmap),
    Built(Buffer),
}

impl Data {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Built(buffer) => buffer.as_bytes(),
        }
    }
}

/// Where the sections of a space lie.
#[derive(Debug)]
pub(super) struct Layout {
    sections: Vec<(Range<usize>, u32)>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Layout {
    /// Reads and checks the header, and the checksum of every section but the token states, whose panels
    /// have checksums of their own.
    pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |problem: &str| Error::space(path, problem);
        if bytes.len() < 12 || bytes[..8] != MAGIC {
            return Err(wrong("is no space file (its first bytes are not `UWESPACE`)"));
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(wrong(&format!(
                "has format version {version}; this program reads version {VERSION}"
            )));
        }
        let header = bytes.get(..header_length()).ok_or_else(|| wrong("ends within its header"))?;
        if crc32fast::hash(&header[..header.len() - 4]) != u32_at(header, header.len() - 4) {
            return Err(wrong("has a damaged header (its checksum does not match)"));
        }
        if u32_at(header, 12) as usize != Section::ALL.len() {
            return Err(wrong("has another number of sections than its version asks for"));
        }
        let length = u64_at(header, 16);
        if length != bytes.len() as u64 {
            return Err(wrong(&format!(
                "is {} bytes long and should be {length}: it is cut off",
                bytes.len()
            )));
        }
        let mut sections = Vec::new();
        let mut expected = header_length();
        for (index, section) in Section::ALL.into_iter().enumerate() {
            let at = HEADER + index * ENTRY;
            let (kind, crc) = (u32_at(header, at), u32_at(header, at + 4));
            let (offset, length) = (u64_at(header, at + 8), u64_at(header, at + 16));
            let end = offset.checked_add(length).filter(|end| *end <= bytes.len() as u64);
            if kind != index as u32 + 1 || offset != expected as u64 || end.is_none() {
                return Err(wrong(&format!("has a section table that does not fit at `{}`", section.name())));
            }
            let range = offset as usize..(offset + length) as usize;
            expected = padded(range.end);
            if expected > bytes.len() {
                return Err(wrong(&format!("ends within section `{}`", section.name())));
            }
            sections.push((range, crc));
        }
        if expected != bytes.len() {
            return Err(wrong("goes on behind its last section"));
        }
        let layout = Self { sections };
        for section in Section::ALL.into_iter().filter(|section| *section != Section::States) {
            layout.check(section, bytes, path)?;
        }
        Ok(layout)
    }

    /// Compares the checksum of a section, padding included.
    pub(super) fn check(&self, section: Section, bytes: &[u8], path: &Path) -> Result<()> {
        let (range, crc) = &self.sections[section as usize];
        if crc32fast::hash(&bytes[range.start..padded(range.end)]) == *crc {
            Ok(())
        } else {
            Err(Error::space(
                path,
                format!("has a damaged section `{}` (its checksum does not match)", section.name()),
            ))
        }
    }

    /// Place of a section, without padding.
    pub(super) fn range(&self, section: Section) -> Range<usize> {
        self.sections[section as usize].0.clone()
    }
}
