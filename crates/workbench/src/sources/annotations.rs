//! Sentences with skills: annotation files, one row a label or one row a sentence.

use super::table;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Sentences in sorted order, each with its labels.
pub type Sentences = BTreeMap<String, Vec<String>>;

/// Files with the columns `sentence` and `label`, a row for each label.
///
/// # Errors
/// [`Error::Data`] for a missing column or a row that does not fit, [`Error::Io`] when it cannot be read.
pub fn row_a_label(path: &Path) -> Result<Sentences> {
    let mut sentences = Sentences::new();
    for [sentence, label] in table::file_columns(path, ["sentence", "label"])? {
        sentences.entry(sentence).or_default().push(label);
    }
    Ok(sentences)
}

/// Files with the columns `sentence` and `skills`, the latter a list as Python prints it.
///
/// # Errors
/// [`Error::Data`] for a missing column or a row that does not fit, [`Error::Io`] when it cannot be read.
pub fn row_a_sentence(path: &Path) -> Result<Sentences> {
    let mut sentences = Sentences::new();
    for (index, [sentence, skills]) in
        table::file_columns(path, ["sentence", "skills"])?.into_iter().enumerate()
    {
        let skills = python_list(&skills).ok_or_else(|| {
            Error::data(
                format!("{}, row {}", path.display(), index + 1),
                format!("`{skills}` in column `skills` is no list of strings"),
                "skills are written as ['one', \"another\"]",
            )
        })?;
        sentences.entry(sentence).or_default().extend(skills);
    }
    Ok(sentences)
}

/// Strings of a list as Python's `repr` writes it.
fn python_list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let mut strings = Vec::new();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| *c == '\'' || *c == '"')?;
        let mut string = String::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next()? {
                (place, c) if c == quote => break 1 + place + 1,
                (_, '\\') => match characters.next()?.1 {
                    'n' => string.push('\n'),
                    't' => string.push('\t'),
                    c @ ('\\' | '\'' | '"') => string.push(c),
                    _ => return None,
                },
                (_, c) => string.push(c),
            }
        };
        strings.push(string);
        rest = rest[end..].trim_start();
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind.trim_start(),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_python_prints_them() {
        let list = |text| python_list(text);
        assert_eq!(list("[]"), Some(vec![]));
        assert_eq!(list("['C#', 'Java (x)']"), Some(vec!["C#".into(), "Java (x)".into()]));
        assert_eq!(
            list(r#"["driver's licence", 'a \'b\'']"#),
            Some(vec!["driver's licence".into(), "a 'b'".into()])
        );
        for wrong in ["", "['a'", "[a]", "['a' 'b']", "['a]", r"['\q']"] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sentences_are_grouped_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        std::fs::write(&path, "sentence,span,label\nb,,two\na,,one\nb,,three\n").unwrap();
        let sentences = row_a_label(&path).unwrap();
        assert_eq!(sentences.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(sentences["b"], ["two", "three"]);
        std::fs::write(&path, "sentence,skills\nb,nope\n").unwrap();
        assert!(row_a_sentence(&path).unwrap_err().to_string().contains("row 1"));
    }
}
