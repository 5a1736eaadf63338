//! Answers by content: a request that was answered once is never sent again.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use workbench::{Error, Result, clear_partial, write_whole};

/// What a server answered, and to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) request: Value,
    pub(super) answer: Value,
}

/// A folder of answers, named by the hash of their request.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        clear_partial(folder);
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Name of a request: the hash of its JSON.
    pub(super) fn key(request: &Value) -> String {
        blake3::hash(request.to_string().as_bytes()).to_hex()[..32].to_string()
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    /// The answer, if there is a sound one.
    pub(super) fn get(&self, request: &Value) -> Option<Value> {
        let bytes = std::fs::read(self.file(&Self::key(request))).ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        (entry.request == *request).then_some(entry.answer)
    }

    /// Keeps an answer; it is whole or absent, whatever happens meanwhile.
    pub(super) fn put(&self, request: &Value, answer: &Value) -> Result<()> {
        let entry = Entry { request: request.clone(), answer: answer.clone() };
        let path = self.file(&Self::key(request));
        let mut bytes = serde_json::to_vec_pretty(&entry)
            .map_err(|error| Error::data(path.display(), error.to_string(), ""))?;
        bytes.push(b'\n');
        write_whole(&path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_belong_to_their_request_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let (a, b) = (json!({"model": "m", "n": 1}), json!({"model": "m", "n": 2}));
        assert_eq!(cache.get(&a), None);
        cache.put(&a, &json!("answer")).unwrap();
        assert_eq!((cache.get(&a), cache.get(&b)), (Some(json!("answer")), None));
        // A damaged entry is none.
        std::fs::write(folder.path().join(format!("{}.json", Cache::key(&a))), "{").unwrap();
        assert_eq!(cache.get(&a), None);
    }
}
