//! Target lists: CSV, TSV, JSON lines, plain lines and ESCO's own archives and folders.

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The form of a target list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One text a line.
    Lines,
    /// Comma-separated with a header line.
    Csv,
    /// Tab-separated with a header line.
    Tsv,
    /// One JSON object a line.
    JsonLines,
    /// An official ESCO archive (zip) or the folder with its CSV files.
    Esco(Pillar),
}

/// Which concepts of ESCO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pillar {
    /// Skills and knowledge.
    Skills,
    /// Occupations.
    Occupations,
}

impl Format {
    /// The form that a path suggests: a folder or `.zip` is ESCO's skills, then by extension; else lines.
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            _ if path.is_dir() => Self::Esco(Pillar::Skills),
            "zip" => Self::Esco(Pillar::Skills),
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "jsonl" | "ndjson" => Self::JsonLines,
            _ => Self::Lines,
        }
    }
}

/// Which columns (or JSON fields) hold the text and the identifier. `None`: the first of the usual names.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Column of the text; usual names: text, label, preferredLabel, title, name.
    pub text: Option<String>,
    /// Column of the identifier; usual names: id, uri, conceptUri. May be missing.
    pub id: Option<String>,
}

const TEXT_NAMES: [&str; 5] = ["text", "label", "preferredLabel", "title", "name"];
const ID_NAMES: [&str; 3] = ["id", "uri", "conceptUri"];

/// Texts to encode, with their columns. Texts are trimmed, none is empty and none repeats.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    columns: Vec<String>,
    /// `rows[target][column]`; column 0 is the text.
    rows: Vec<Vec<String>>,
    seen: HashSet<String>,
    folded: usize,
    empty: usize,
    source: String,
}

impl Targets {
    /// No targets yet; `columns` are the further columns behind the text.
    pub fn new(source: impl Into<String>, columns: &[&str]) -> Self {
        let columns = std::iter::once("text").chain(columns.iter().copied()).map(str::to_string).collect();
        Self { columns, source: source.into(), ..Self::default() }
    }

    /// Adds a target; `fields` are its further columns. Returns whether it was kept: an empty text is left
    /// out, and a repeated one is folded into the first.
    pub fn push(&mut self, text: &str, fields: Vec<String>) -> bool {
        let text = text.trim();
        if text.is_empty() {
            self.empty += 1;
            return false;
        }
        if !self.seen.insert(text.to_string()) {
            self.folded += 1;
            return false;
        }
        let mut row = vec![text.to_string()];
        row.extend(fields);
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        true
    }

    /// Reads a target list.
    ///
    /// # Errors
    /// [`Error::Input`] names the file and the line or column at fault; [`Error::Io`] when it cannot be read.
    pub fn read(path: &Path, format: Format, columns: &Columns) -> Result<Self> {
        if let Format::Esco(pillar) = format {
            return esco(path, pillar);
        }
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        Self::from_reader(file, &path.display().to_string(), format, columns)
    }

    /// Reads a target list that is no file; `name` stands in errors and as the source.
    ///
    /// # Errors
    /// Those of [`Targets::read`]; [`Error::Argument`] for the format of ESCO, which is several files.
    pub fn from_reader(reader: impl Read, name: &str, format: Format, columns: &Columns) -> Result<Self> {
        match format {
            Format::Csv => delimited(reader, name, b',', columns),
            Format::Tsv => delimited(reader, name, b'\t', columns),
            Format::JsonLines => json_lines(reader, name, (columns, MOST_CELLS)),
            Format::Lines => {
                let mut targets = Self::new(name, &[]);
                for line in Lines::new(BufReader::new(reader), name) {
                    targets.push(&line?, Vec::new());
                }
                Ok(targets)
            }
            Format::Esco(_) => Err(Error::Argument {
                name: "format",
                problem: "ESCO is an archive or a folder of files; name it by its path".into(),
            }),
        }
    }

    /// Number of targets.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many repeated texts were folded into their first.
    pub fn folded(&self) -> usize {
        self.folded
    }

    /// How many empty texts were left out.
    pub fn left_out(&self) -> usize {
        self.empty
    }

    /// Where the targets came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Text of target `index`.
    pub fn text(&self, index: usize) -> &str {
        self.rows.get(index).map_or("", |row| &row[0])
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(super) fn strings(&self) -> impl Iterator<Item = &str> {
        (0..self.columns.len()).flat_map(|column| self.rows.iter().map(move |row| &row[column][..]))
    }
}

/// Lines of UTF-8 text, without their line ends; the first invalid one ends with its number.
pub struct Lines<R> {
    reader: R,
    name: String,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `reader`; `name` stands in errors.
    pub fn new(reader: R, name: impl Into<String>) -> Self {
        Self { reader, name: name.into(), line: 0 }
    }
}

impl<R: Read> Lines<BufReader<R>> {
    /// Whether a whole line lies in the buffer, so that the next call does not wait for the source.
    pub fn is_ready(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<String>;
    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        match self.reader.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(source) => {
                return Some(Err(Error::Io { action: "read", path: PathBuf::from(&self.name), source }));
            }
        }
        self.line += 1;
        if self.line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        while bytes.last().is_some_and(|byte| *byte == b'\n' || *byte == b'\r') {
            bytes.pop();
        }
        Some(
            String::from_utf8(bytes)
                .map_err(|_| input(&self.name, Some(self.line), "is not valid UTF-8", UTF_8)),
        )
    }
}

const UTF_8: &str = "convert the file to UTF-8 (for example `iconv -f latin1 -t utf-8`)";

fn input(name: &str, line: Option<u64>, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Input { source_name: name.to_string(), line, problem: problem.into(), hint: hint.into() }
}

/// Places of the text, the identifier and all other columns.
struct Places {
    text: usize,
    id: Option<usize>,
    others: Vec<usize>,
}

impl Places {
    fn find(names: &[String], wanted: &Columns, file: &str) -> Result<Self> {
        let place = |name: &str| names.iter().position(|column| column == name);
        let missing = |what: &str| {
            input(
                file,
                Some(1),
                format!("has no column {what}; its columns are: {}", names.join(", ")),
                "name the column of the text with --text-column, and that of the identifier with --id-column",
            )
        };
        let text = match &wanted.text {
            Some(name) => place(name).ok_or_else(|| missing(&format!("`{name}`")))?,
            None => TEXT_NAMES
                .into_iter()
                .find_map(place)
                .ok_or_else(|| missing(&format!("named {}", TEXT_NAMES.join(" or "))))?,
        };
        let id = match &wanted.id {
            Some(name) => Some(place(name).ok_or_else(|| missing(&format!("`{name}`")))?),
            None => ID_NAMES.into_iter().find_map(place).filter(|id| *id != text),
        };
        let others = (0..names.len()).filter(|column| *column != text && Some(*column) != id).collect();
        Ok(Self { text, id, others })
    }

    fn targets(&self, names: &[String], file: &str) -> Targets {
        let mut columns = vec!["id"];
        columns.extend(self.others.iter().map(|column| &names[*column][..]));
        Targets::new(file, &columns)
    }

    fn fields(&self, value: impl Fn(usize) -> String) -> Vec<String> {
        std::iter::once(self.id.map(&value).unwrap_or_default())
            .chain(self.others.iter().map(|column| value(*column)))
            .collect()
    }
}

fn delimited(reader: impl Read, file: &str, delimiter: u8, wanted: &Columns) -> Result<Targets> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(false).from_reader(reader);
    let broken = |error: csv::Error| {
        let line = error.position().map(csv::Position::line);
        match error.into_kind() {
            csv::ErrorKind::Utf8 { .. } => input(file, line, "is not valid UTF-8", UTF_8),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => input(
                file,
                line,
                format!("has {len} fields; the header has {expected_len}"),
                "quote fields that hold the delimiter, a quote or a line break",
            ),
            csv::ErrorKind::Io(source) => Error::Io { action: "read", path: PathBuf::from(file), source },
            other => input(file, line, format!("{other:?}"), "the file must be CSV with a header line"),
        }
    };
    let names: Vec<String> = reader
        .headers()
        .map_err(broken)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_string())
        .collect();
    let places = Places::find(&names, wanted, file)?;
    let mut targets = places.targets(&names, file);
    for record in reader.records() {
        let record = record.map_err(broken)?;
        targets.push(&record[places.text], places.fields(|column| record[column].to_string()));
    }
    Ok(targets)
}

/// Most rows times fields of JSON lines. An absent field takes room too: without a limit, a first line with many fields would make a small file
/// a large list.
const MOST_CELLS: usize = 32 << 20;

fn json_lines(reader: impl Read, file: &str, (wanted, most_cells): (&Columns, usize)) -> Result<Targets> {
    let mut state: Option<(Vec<String>, Places, Targets)> = None;
    let mut cells = 0;
    for (index, line) in Lines::new(BufReader::new(reader), file).enumerate() {
        let (line, number) = (line?, index as u64 + 1);
        if line.trim().is_empty() {
            continue;
        }
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&line).map_err(|error| {
                input(
                    file,
                    Some(number),
                    format!("is no JSON object: {error}"),
                    "the file must hold one object a line",
                )
            })?;
        let (names, places, targets) = match &mut state {
            Some(state) => state,
            None => {
                // The first line says which fields there are.
                let names: Vec<String> = object.keys().cloned().collect();
                let places = Places::find(&names, wanted, file)?;
                let targets = places.targets(&names, file);
                state.insert((names, places, targets))
            }
        };
        let value = |column: usize| match object.get(&names[column]) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if !object.get(&names[places.text]).is_some_and(serde_json::Value::is_string) {
            let problem = format!("has no text in field `{}`", names[places.text]);
            return Err(input(file, Some(number), problem, "every object needs the text as a string"));
        }
        cells += names.len();
        if cells > most_cells {
            let problem = format!("rows times fields are more than {most_cells}");
            return Err(input(file, Some(number), problem, "leave out fields that are not needed"));
        }
        targets.push(&value(places.text), places.fields(value));
    }
    Ok(state.map_or_else(|| Targets::new(file, &["id"]), |(_, _, targets)| targets))
}

/// Reads `skills_*.csv` or `occupations_*.csv` of an ESCO archive or folder.
fn esco(path: &Path, pillar: Pillar) -> Result<Targets> {
    let prefix = match pillar {
        Pillar::Skills => "skills_",
        Pillar::Occupations => "occupations_",
    };
    let wanted = |name: &str| name.starts_with(prefix) && name.ends_with(".csv");
    let choose = |mut names: Vec<String>| -> Result<String> {
        names.sort();
        let base = |name: &String| name.rsplit('/').next().unwrap_or_default().to_string();
        let fitting: Vec<&String> = names.iter().filter(|name| wanted(&base(name))).collect();
        match fitting[..] {
            [one] => Ok(one.clone()),
            [] => Err(input(
                &path.display().to_string(),
                None,
                format!("holds no {prefix}*.csv; it holds: {}", names.join(", ")),
                "take the archive of the classification in one language, as CSV, from ESCO's download page",
            )),
            _ => Err(input(
                &path.display().to_string(),
                None,
                format!("holds several {prefix}*.csv"),
                "keep one language in the folder",
            )),
        }
    };
    if path.is_dir() {
        let names = std::fs::read_dir(path)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect::<std::io::Result<_>>()
            })
            .map_err(Error::io("read", path))?;
        let file = path.join(choose(names)?);
        return esco_table(
            std::fs::File::open(&file).map_err(Error::io("open", &file))?,
            &file.display().to_string(),
        );
    }
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let name = path.display().to_string();
    let unsound = |error: zip::result::ZipError| {
        input(&name, None, format!("is no sound zip archive: {error}"), "get the archive again")
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(unsound)?;
    let names: std::result::Result<Vec<String>, _> =
        archive.file_names().map(|name| name.map(|name| name.into_owned())).collect();
    let entry = choose(names.map_err(unsound)?)?;
    let entry_name = format!("{name}:{entry}");
    esco_table(archive.by_name(&entry).map_err(unsound)?, &entry_name)
}

fn esco_table(reader: impl Read, file: &str) -> Result<Targets> {
    let columns = Columns { text: Some("preferredLabel".into()), id: Some("conceptUri".into()) };
    let all = delimited(reader, file, b',', &columns)?;
    let alternatives = all.columns.iter().position(|name| name == "altLabels");
    let mut targets = Targets::new(file, &["id", "alternative_labels"]);
    (targets.folded, targets.empty) = (all.folded, all.empty);
    for row in all.rows {
        let alternatives = alternatives.map(|column| row[column].clone()).unwrap_or_default();
        targets.push(&row[0], vec![row[1].clone(), alternatives]);
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn read(name: &str, content: &[u8], columns: &Columns) -> Result<Targets> {
        let (_folder, path) = file(name, content);
        Targets::read(&path, Format::of(&path), columns)
    }

    #[test]
    fn lines_are_trimmed_folded_and_counted() {
        let targets = read("a.txt", b"\xef\xbb\xbf weld \r\n\nbake\nweld\n", &Columns::default()).unwrap();
        assert_eq!((targets.len(), targets.folded(), targets.left_out()), (2, 1, 1));
        assert_eq!((targets.text(0), targets.text(1)), ("weld", "bake"));
    }

    #[test]
    fn absent_fields_take_room_too() {
        let lines = concat!(r#"{"text":"a","x":1,"y":2}"#, "\n", r#"{"text":"b"}"#, "\n", r#"{"text":"c"}"#);
        let read = |most| json_lines(lines.as_bytes(), "a.jsonl", (&Columns::default(), most));
        assert_eq!(read(9).unwrap().len(), 3);
        let error = read(8).unwrap_err().to_string();
        assert!(error.contains("a.jsonl") && error.contains('3') && error.contains("more than 8"), "{error}");
    }

    #[test]
    fn csv_tsv_and_json_lines_keep_their_columns() {
        let expected = vec!["weld".to_string(), "s1".into(), "hot, bright".into()];
        let csv = read("a.csv", b"id,label,note\ns1,weld,\"hot, bright\"\n", &Columns::default()).unwrap();
        assert_eq!(csv.rows[0], expected);
        assert_eq!(csv.columns, ["text", "id", "note"]);
        let tsv = read("a.tsv", b"id\tlabel\tnote\ns1\tweld\thot, bright\n", &Columns::default()).unwrap();
        assert_eq!(tsv.rows[0], expected);
        let json = br#"{"id":"s1","label":"weld","note":"hot, bright"}"#;
        assert_eq!(read("a.jsonl", json, &Columns::default()).unwrap().rows[0], expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wanted = Columns { text: Some("skill".into()), id: None };
        let message = |result: Result<Targets>| result.unwrap_err().to_string();
        let error = message(read("a.csv", b"id,label\n1,weld\n", &wanted));
        assert!(error.contains("`skill`") && error.contains("id, label"), "{error}");
        let error = message(read("a.csv", b"label\nweld\n\xff\n", &Columns::default()));
        assert!(error.contains("line 3") && error.contains("UTF-8"), "{error}");
        let error = message(read("a.csv", b"label,id\nweld,1\nbake\n", &Columns::default()));
        assert!(error.contains("line 3") && error.contains("1 fields"), "{error}");
        let error = message(read("a.txt", b"weld\nb\xffke\n", &Columns::default()));
        assert!(error.contains("line 2") && error.contains("UTF-8"), "{error}");
        let error = message(read("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":", &Columns::default()));
        assert!(error.contains("line 2") && error.contains("JSON"), "{error}");
        let error = message(read("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":4}", &Columns::default()));
        assert!(error.contains("line 2") && error.contains("`text`"), "{error}");
        let error = message(read("a.zip", b"PK nothing", &Columns::default()));
        assert!(error.contains("zip"), "{error}");
    }

    #[test]
    fn esco_folders_give_labels_uris_and_alternatives() {
        let table = b"conceptType,conceptUri,preferredLabel,altLabels,description\r\n\
            KnowledgeSkillCompetence,http://e/1,weld,\"join metal\nfuse metal\",Join metal by heat.\r\n";
        let (folder, _) = file("skills_en.csv", table);
        let targets = Targets::read(folder.path(), Format::of(folder.path()), &Columns::default()).unwrap();
        assert_eq!(targets.columns, ["text", "id", "alternative_labels"]);
        assert_eq!(targets.rows[0], ["weld", "http://e/1", "join metal\nfuse metal"]);
        let missing = Targets::read(folder.path(), Format::Esco(Pillar::Occupations), &Columns::default());
        let error = missing.unwrap_err().to_string();
        assert!(error.contains("occupations_") && error.contains("skills_en.csv"), "{error}");
    }
}
