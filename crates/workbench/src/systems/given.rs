//! Scores from elsewhere: a NumPy matrix or a TREC run for each set.

use super::{Description, Scores, System, Watch};
use crate::error::{Error, Result};
use crate::set::RankingSet;
use crate::sources::sorted_entries;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A folder with `KEY.npy` or `KEY.run` for each set, `KEY` being `name.split.language`.
///
/// A matrix holds `queries x targets` scores as 32-bit or 64-bit floats, rows first. A run holds lines of
/// `query Q0 target rank score tag`, where query and target are indices from 0; what a run leaves out comes
/// behind everything that it lists, in the order of the targets.
#[derive(Clone, Debug)]
pub struct GivenScores {
    folder: PathBuf,
    name: String,
    fingerprint: String,
}

impl GivenScores {
    /// The scores of a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let names = sorted_entries(folder)?;
        let mut hasher = blake3::Hasher::new();
        for path in names.iter().filter(|path| path.is_file()) {
            hasher.update(path.file_name().map_or(&b""[..], |name| name.as_encoded_bytes()));
            let file = File::open(path).map_err(Error::io("open", path))?;
            hasher.update_reader(file).map_err(Error::io("read", path))?;
        }
        let name =
            folder.file_name().map_or_else(|| "given".into(), |name| name.to_string_lossy().into_owned());
        let fingerprint = hasher.finalize().to_hex()[..32].to_string();
        Ok(Self { folder: folder.to_path_buf(), name, fingerprint })
    }
}

impl System for GivenScores {
    fn description(&self) -> Description {
        Description {
            name: self.name.clone(),
            kind: "given".into(),
            fingerprint: self.fingerprint.clone(),
            options: serde_json::json!({}),
        }
    }

    fn open<'a>(&'a self, set: &'a RankingSet, _: &mut Watch<'_>) -> Result<Box<dyn Scores + 'a>> {
        let key = set.identity.key();
        let (matrix, run) = (self.folder.join(format!("{key}.npy")), self.folder.join(format!("{key}.run")));
        if matrix.is_file() {
            return Ok(Box::new(Matrix::open(matrix, set)?));
        }
        if run.is_file() {
            return Ok(Box::new(TrecRun { lists: read_run(&run, set)?, targets: set.targets.len() }));
        }
        Err(Error::Set {
            set: key,
            problem: format!("{} has neither {} nor {}", self.folder.display(), name(&matrix), name(&run)),
        })
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

struct Matrix {
    path: PathBuf,
    numbers: Box<dyn Iterator<Item = std::io::Result<f32>>>,
    targets: usize,
    next: usize,
}

impl Matrix {
    fn open(path: PathBuf, set: &RankingSet) -> Result<Self> {
        let wrong = |problem: String| {
            Error::data(
                path.display(),
                problem,
                "save scores with numpy.save, as float32, queries by targets",
            )
        };
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let npy = npyz::NpyFile::new(BufReader::with_capacity(1 << 20, file))
            .map_err(|error| wrong(format!("is no NumPy file: {error}")))?;
        let wanted = [set.queries.len() as u64, set.targets.len() as u64];
        if npy.shape() != wanted || npy.order() != npyz::Order::C {
            return Err(wrong(format!(
                "has shape {:?} in order {:?}; the set needs {wanted:?} in order C",
                npy.shape(),
                npy.order()
            )));
        }
        let numbers: Box<dyn Iterator<Item = std::io::Result<f32>>> = match npy.try_data::<f32>() {
            Ok(numbers) => Box::new(numbers),
            Err(npy) => match npy.try_data::<f64>() {
                Ok(numbers) => Box::new(numbers.map(|number| number.map(|number| number as f32))),
                Err(_) => return Err(wrong("holds neither float32 nor float64".into())),
            },
        };
        Ok(Self { path, numbers, targets: set.targets.len(), next: 0 })
    }
}

impl Scores for Matrix {
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>> {
        assert_eq!(queries.start, self.next, "rows are read in order");
        self.next = queries.end;
        let mut rows = Vec::with_capacity(queries.len());
        for _ in queries {
            let row: std::io::Result<Vec<f32>> = self.numbers.by_ref().take(self.targets).collect();
            rows.push(row.map_err(Error::io("read", &self.path))?);
        }
        Ok(rows)
    }
}

struct TrecRun {
    lists: HashMap<usize, Vec<(usize, f32)>>,
    targets: usize,
}

fn read_run(path: &Path, set: &RankingSet) -> Result<HashMap<usize, Vec<(usize, f32)>>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut lists: HashMap<usize, Vec<(usize, f32)>> = HashMap::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("read", path))?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let parsed = match fields[..] {
            [] => continue,
            [query, _, target, _, score, ..] => match (query.parse(), target.parse(), score.parse::<f32>()) {
                (Ok(query), Ok(target), Ok(score))
                    if query < set.queries.len() && target < set.targets.len() && !score.is_nan() =>
                {
                    Some((query, target, score))
                }
                _ => None,
            },
            _ => None,
        };
        let (query, target, score) = parsed.ok_or_else(|| {
            Error::data(
                format!("{}, line {}", path.display(), index + 1),
                format!("`{line}` is no line of a run"),
                "lines are `query Q0 target rank score tag` with indices from 0 within the set",
            )
        })?;
        lists.entry(query).or_default().push((target, score));
    }
    Ok(lists)
}

impl Scores for TrecRun {
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>> {
        Ok(queries
            .map(|query| {
                let mut row = vec![f32::NEG_INFINITY; self.targets];
                for (target, score) in self.lists.get(&query).into_iter().flatten() {
                    row[*target] = *score;
                }
                row
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::{RawSet, tests::identity};

    fn set() -> RankingSet {
        let raw = RawSet {
            targets: ["x", "y", "z"].map(String::from).to_vec(),
            queries: vec![("a".into(), vec![(0, 1.0)]), ("b".into(), vec![(1, 1.0)])],
        };
        RankingSet::prepare(identity("s"), raw).unwrap()
    }

    #[test]
    fn runs_and_matrices_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.test.en.run");
        std::fs::write(&path, "0 Q0 2 1 3.5 tag\n1 Q0 0 1 0.5 tag\n").unwrap();
        let set = set();
        let system = GivenScores::open(folder.path()).unwrap();
        let mut scores = system.open(&set, &mut |_, _| true).unwrap();
        let low = f32::NEG_INFINITY;
        assert_eq!(scores.rows(0..2).unwrap(), [[low, low, 3.5], [0.5, low, low]]);
        std::fs::write(&path, "0 Q0 9 1 3.5 tag\n").unwrap();
        let error = system.open(&set, &mut |_, _| true).err().unwrap();
        assert!(error.to_string().contains("line 1"), "{error}");

        let mut bytes = Vec::new();
        {
            use npyz::WriterBuilder;
            let mut writer = npyz::WriteOptions::<f64>::new()
                .default_dtype()
                .shape(&[2, 3])
                .writer(&mut bytes)
                .begin_nd()
                .unwrap();
            writer.extend([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
            writer.finish().unwrap();
        }
        std::fs::write(folder.path().join("s.test.en.npy"), bytes).unwrap();
        let other = GivenScores::open(folder.path()).unwrap();
        assert_ne!(other.description(), system.description());
        let mut scores = other.open(&set, &mut |_, _| true).unwrap();
        assert_eq!(scores.rows(0..1).unwrap(), [[1.0, 2.0, 3.0]]);
        assert_eq!(scores.rows(1..2).unwrap(), [[4.0, 5.0, 6.0]]);
    }
}
