//! How texts are compared: what differs only in case, accents' encoding, punctuation or blanks is the same.

use unicode_normalization::UnicodeNormalization;

/// Letters and digits of a text in lower case, everything else as single blanks.
///
/// `C++` and `C#` would both become `c`: a `+` or `#` that follows a letter or digit stays.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().flat_map(char::to_lowercase) {
        let follows = || folded.ends_with(|last: char| last.is_alphanumeric() || last == '+');
        if c.is_alphanumeric() || (matches!(c, '+' | '#') && follows()) {
            folded.push(c);
        } else if is_mark(c) || is_invisible(c) {
            // A combining mark belongs to its letter: it neither parts a word nor tells two apart. What cannot be seen
            // must not hide a text either.
        } else if !folded.ends_with(' ') && !folded.is_empty() {
            folded.push(' ');
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// Combining marks of Latin, Greek and Cyrillic letters, as NFKD splits them off.
fn is_mark(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}

/// Soft hyphen, zero-width and direction marks, byte-order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// The words of a folded text, sorted and unique.
pub fn words(folded: &str) -> Vec<&str> {
    let mut words: Vec<&str> = folded.split(' ').filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// A text with single blanks between its words.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number in [0, 1) that depends on the seed and the text alone.
pub(crate) fn lot(seed: u64, text: &str) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(text.as_bytes());
    let hash = hasher.finalize();
    let number = hash.as_bytes()[..8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    (number >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike_is_the_same() {
        assert_eq!(fold("  Registered\tNurse (RN) – ICU! "), "registered nurse rn icu");
        assert_eq!(fold("Café"), fold("CAFE\u{301}"));
        assert_eq!(fold("ＮＵＲＳＥ"), "nurse");
        assert_eq!(fold("C++ / C#"), "c++ c#");
        assert_eq!(fold("ba\u{ad}k\u{200b}er"), "baker");
        assert_eq!(fold("-- !"), "");
        assert_eq!(words("b a b"), ["a", "b"]);
    }

    #[test]
    fn lots_are_even_and_stay() {
        let held = (0..10_000).filter(|i| lot(1, &i.to_string()) < 0.1).count();
        assert!((900..1100).contains(&held), "{held}");
        assert_eq!(lot(7, "nurse"), lot(7, "nurse"));
        assert_ne!(lot(7, "nurse"), lot(8, "nurse"));
    }
}
