//! Model folders as sentence-transformers writes them: which modules, which pooling, which architecture.
//!
//! Both layouts are read: the old one (`pooling_mode_mean_tokens: true`, module types under
//! `sentence_transformers.models`) and the one since version 5.4 (`pooling_mode: "mean"`, other module
//! paths). What is not known is refused by its name, never guessed.

use crate::error::{Error, Result};
use crate::score::Scoring;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// How token states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Mean over all tokens, special ones included.
    Mean,
    /// The first token's state.
    FirstToken,
}

impl Pooling {
    /// The name that sentence-transformers uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::FirstToken => "cls",
        }
    }
}

/// The two encoder architectures that this crate runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// BERT: absolute positions, token types.
    Bert,
    /// MPNet: absolute positions and a bias by distance in the attention.
    MpNet,
}

impl Architecture {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::MpNet => "mpnet",
        }
    }
}

/// What a folder says about its model; the paths are checked to exist.
#[derive(Clone, Debug)]
pub struct Folder {
    /// What `config.json` says.
    pub config: Config,
    /// The weight file, safetensors.
    pub weights: PathBuf,
    /// `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// The scorer that the model is trained for, where the folder says so in `config_uwe.json`.
    pub scoring: Option<Scoring>,
}

/// `config.json`, as far as running the encoder needs it.
#[derive(Clone, Debug)]
pub struct Config {
    /// BERT or MPNet.
    pub architecture: Architecture,
    /// Width of a token state.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Rows of the word table.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Row of the first position.
    pub first_position: usize,
    /// Added to variances by layer normalisation.
    pub epsilon: f32,
    /// MPNet: number of distance buckets.
    pub buckets: usize,
}

impl Folder {
    /// Reads the configuration files of a model folder.
    ///
    /// # Errors
    /// [`Error::Model`] names the file and what of it is not known.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::model(
                folder,
                "is not a folder",
                "name a folder with config.json, model.safetensors and tokenizer.json",
            ));
        }
        let (transformer, pooling) = modules(folder)?;
        let config = config(&transformer.join("config.json"))?;
        // sentence-transformers writes the tokenizer beside the weights; some exports leave it one level up.
        let tokenizer = [transformer.join("tokenizer.json"), folder.join("tokenizer.json")]
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Error::model(
                    &transformer.join("tokenizer.json"),
                    "is missing",
                    "save the model with a fast tokenizer (transformers: `AutoTokenizer.from_pretrained(..., \
                     use_fast=True).save_pretrained(folder)`)",
                )
            })?;
        Ok(Self { config, weights: weights(&transformer)?, tokenizer, pooling, scoring: scoring(folder)? })
    }
}

/// What a folder says of serving its model.
#[derive(Deserialize)]
struct Serving {
    scoring: Scoring,
}

/// The scorer that a model is trained for.
fn scoring(folder: &Path) -> Result<Option<Scoring>> {
    let file = folder.join("config_uwe.json");
    if !file.exists() {
        return Ok(None);
    }
    let serving: Serving = serde_json::from_value(json(&file)?).map_err(|error| {
        Error::model(
            &file,
            format!("names no scorer: {error}"),
            "delete the file to serve with the default scorer",
        )
    })?;
    serving.scoring.check()?;
    Ok(Some(serving.scoring))
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

fn json(file: &Path) -> Result<Value> {
    let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::model(file, format!("is no valid JSON: {error}"), "get the file again"))
}

/// The folder of the transformer and the pooling, from `modules.json`.
fn modules(folder: &Path) -> Result<(PathBuf, Pooling)> {
    let file = folder.join("modules.json");
    if !file.exists() {
        // A plain transformers folder: sentence-transformers itself would add mean pooling.
        return Ok((folder.to_path_buf(), Pooling::Mean));
    }
    let list: Vec<Module> = serde_json::from_value(json(&file)?).map_err(|error| {
        Error::model(&file, format!("is no list of modules: {error}"), "get the file again")
    })?;
    let (mut transformer, mut pooling) = (None, Pooling::Mean);
    for (index, module) in list.iter().enumerate() {
        let path = inside(folder, &module.path).ok_or_else(|| {
            Error::model(&file, format!("module path `{}` leaves the folder", module.path), "")
        })?;
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" if index == 0 => transformer = Some(path),
            "Pooling" => pooling = read_pooling(&path.join("config.json"))?,
            "Normalize" => {}
            other => {
                return Err(Error::model(
                    &file,
                    format!("module {index} is `{other}` ({})", module.kind),
                    "modules that can be served: one Transformer, then Pooling, then Normalize",
                ));
            }
        }
    }
    let transformer = transformer.ok_or_else(|| {
        Error::model(&file, "names no Transformer", "the first module must be a Transformer")
    })?;
    Ok((transformer, pooling))
}

/// `folder/path`, unless `path` is absolute or climbs out.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let sound = Path::new(path)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    sound.then(|| folder.join(path))
}

fn read_pooling(file: &Path) -> Result<Pooling> {
    let value = json(file)?;
    let mut modes: Vec<String> = Vec::new();
    match value.get("pooling_mode") {
        Some(Value::String(mode)) => modes.push(mode.clone()),
        Some(Value::Array(list)) => modes.extend(list.iter().map(|m| m.as_str().unwrap_or("?").to_string())),
        _ => {
            for (name, on) in value.as_object().unwrap_or(&Map::new()) {
                if let Some(mode) = name.strip_prefix("pooling_mode_")
                    && on.as_bool() == Some(true)
                {
                    modes.push(mode.trim_end_matches("_tokens").trim_end_matches("_token").to_string());
                }
            }
        }
    }
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::FirstToken),
        _ => Err(Error::model(
            file,
            format!(
                "pooling `{}` is not known",
                if modes.is_empty() { "none".into() } else { modes.join("+") }
            ),
            "poolings that can be served: mean, cls",
        )),
    }
}

/// The weight file; anything but one safetensors file is refused.
fn weights(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("model.safetensors");
    if file.is_file() {
        return Ok(file);
    }
    if folder.join("model.safetensors.index.json").is_file() {
        return Err(Error::model(
            &folder.join("model.safetensors.index.json"),
            "the weights are cut into several files",
            "save the model with `max_shard_size=\"50GB\"`, so that it becomes one model.safetensors",
        ));
    }
    for pickled in ["pytorch_model.bin", "model.bin", "pytorch_model.pt"] {
        if folder.join(pickled).is_file() {
            return Err(Error::model(
                &folder.join(pickled),
                "is a pickled file, which can run code when it is loaded; it is not read",
                "convert it once in Python: `AutoModel.from_pretrained(folder).save_pretrained(folder, \
                 safe_serialization=True)`",
            ));
        }
    }
    Err(Error::model(&file, "is missing", "a model folder needs its weights as model.safetensors"))
}

fn config(file: &Path) -> Result<Config> {
    let value = json(file)?;
    let wrong = |field: &str, problem: String| {
        Error::model(
            file,
            format!("field `{field}` {problem}"),
            "the file does not describe a BERT or MPNet encoder",
        )
    };
    let number = |field: &str| -> Result<usize> {
        let found = value.get(field).ok_or_else(|| wrong(field, "is missing".into()))?;
        let number = found.as_u64().and_then(|n| usize::try_from(n).ok());
        match number {
            Some(number) if (1..1 << 24).contains(&number) => Ok(number),
            _ => Err(wrong(field, format!("is {found}, not a sensible count"))),
        }
    };
    let text = |field: &str, default: &str| -> String {
        value.get(field).map_or(default.to_string(), |v| v.as_str().map_or(v.to_string(), str::to_string))
    };
    let architecture = match text("model_type", "none").as_str() {
        "bert" => Architecture::Bert,
        "mpnet" => Architecture::MpNet,
        other => {
            return Err(Error::model(
                file,
                format!("architecture `{other}` is not known"),
                "architectures that can be served: bert, mpnet",
            ));
        }
    };
    for (field, only) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        let found = text(field, only);
        if found != only {
            return Err(wrong(field, format!("is `{found}`; only `{only}` is known")));
        }
    }
    if value.get("is_decoder").and_then(Value::as_bool) == Some(true) {
        return Err(wrong("is_decoder", "is true; only encoders can be served".into()));
    }
    let epsilon = value.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12) as f32;
    if !(epsilon > 0.0 && epsilon < 1.0) {
        return Err(wrong("layer_norm_eps", format!("is {epsilon}")));
    }
    let config = Config {
        architecture,
        hidden: number("hidden_size")?,
        layers: number("num_hidden_layers")?,
        heads: number("num_attention_heads")?,
        intermediate: number("intermediate_size")?,
        vocabulary: number("vocab_size")?,
        positions: number("max_position_embeddings")?,
        first_position: match architecture {
            Architecture::Bert => 0,
            // Positions start behind the padding id, which is 1 for MPNet unless the file says otherwise.
            Architecture::MpNet => {
                value.get("pad_token_id").and_then(Value::as_u64).unwrap_or(1) as usize + 1
            }
        },
        epsilon,
        buckets: match architecture {
            Architecture::Bert => 0,
            Architecture::MpNet => number("relative_attention_num_buckets")?,
        },
    };
    let lanes = crate::kernel::LANES;
    if !config.hidden.is_multiple_of(config.heads) || !(config.hidden / config.heads).is_multiple_of(lanes) {
        return Err(wrong(
            "num_attention_heads",
            format!(
                "gives heads of {}/{}; a head's width must be a multiple of {lanes}",
                config.hidden, config.heads
            ),
        ));
    }
    if !config.intermediate.is_multiple_of(lanes) {
        return Err(wrong("intermediate_size", format!("must be a multiple of {lanes}")));
    }
    if config.first_position >= config.positions {
        return Err(wrong("max_position_embeddings", "leaves no position".into()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: &str = r#"{"model_type":"bert","hidden_size":32,"num_hidden_layers":1,"num_attention_heads":2,
        "intermediate_size":64,"vocab_size":9,"max_position_embeddings":16,"hidden_act":"gelu"}"#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn modules_json(kinds: &[(&str, &str)]) -> String {
        let list: Vec<Value> = kinds
            .iter()
            .enumerate()
            .map(|(i, (path, kind))| serde_json::json!({"idx": i, "name": "n", "path": path, "type": kind}))
            .collect();
        serde_json::to_string(&list).unwrap()
    }

    #[test]
    fn a_folder_may_name_its_scorer() {
        let of = |text: &str| scoring(folder(&[("config_uwe.json", text)]).path());
        assert_eq!(scoring(folder(&[("config.json", BERT)]).path()).unwrap(), None);
        let named = of(r#"{"scoring": {"scorer": "cosine", "special_tokens": true}}"#).unwrap().unwrap();
        assert_eq!(named.scorer, crate::score::Scorer::Cosine);
        let error = of(r#"{"scoring": {"scorer": "cosines", "special_tokens": true}}"#).unwrap_err();
        assert!(error.to_string().contains("config_uwe.json") && error.hint().is_some(), "{error}");
    }

    #[test]
    fn both_layouts_are_read() {
        let old = modules_json(&[
            ("", "sentence_transformers.models.Transformer"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
            ("2_Normalize", "sentence_transformers.models.Normalize"),
        ]);
        let new = modules_json(&[
            ("0_Transformer", "sentence_transformers.base.modules.transformer.Transformer"),
            ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ]);
        let old = folder(&[
            ("modules.json", &old),
            ("1_Pooling/config.json", r#"{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":false}"#),
            ("config.json", BERT),
            ("tokenizer.json", "{}"),
            ("model.safetensors", ""),
        ]);
        let new = folder(&[
            ("modules.json", &new),
            ("1_Pooling/config.json", r#"{"embedding_dimension":32,"pooling_mode":"cls"}"#),
            ("0_Transformer/config.json", BERT),
            ("0_Transformer/model.safetensors", ""),
            ("tokenizer.json", "{}"),
        ]);
        assert_eq!(Folder::open(old.path()).unwrap().pooling, Pooling::Mean);
        let new = Folder::open(new.path()).unwrap();
        assert_eq!(new.pooling, Pooling::FirstToken);
        assert!(new.weights.ends_with("0_Transformer/model.safetensors"));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |files: &[(&str, &str)]| {
            let folder = folder(files);
            let error = Folder::open(folder.path()).unwrap_err();
            (error.to_string(), error.hint().unwrap_or_default())
        };
        let dense = modules_json(&[("", "a.Transformer"), ("2_Dense", "sentence_transformers.models.Dense")]);
        assert!(refused(&[("modules.json", &dense)]).0.contains("`Dense`"));
        let climb = modules_json(&[("../elsewhere", "a.Transformer")]);
        assert!(refused(&[("modules.json", &climb)]).0.contains("leaves the folder"));
        let pooled = modules_json(&[("", "a.Transformer"), ("1_Pooling", "a.Pooling")]);
        let max = r#"{"pooling_mode_max_tokens":true}"#;
        let (error, hint) = refused(&[("modules.json", &pooled), ("1_Pooling/config.json", max)]);
        assert!(error.contains("pooling `max`") && hint.contains("mean"), "{error}");
        let both = r#"{"pooling_mode":["mean","max"]}"#;
        assert!(
            refused(&[("modules.json", &pooled), ("1_Pooling/config.json", both)]).0.contains("mean+max")
        );
        assert!(refused(&[("config.json", r#"{"model_type":"roberta"}"#)]).0.contains("`roberta`"));
        let relu = BERT.replace("\"gelu\"", "\"relu\"");
        assert!(refused(&[("config.json", &relu)]).0.contains("`hidden_act` is `relu`"));
        let huge = BERT.replace("\"vocab_size\":9", "\"vocab_size\":-9");
        assert!(refused(&[("config.json", &huge)]).0.contains("`vocab_size`"));
        let pickled = [("config.json", BERT), ("tokenizer.json", "{}"), ("pytorch_model.bin", "")];
        let (error, hint) = refused(&pickled);
        assert!(error.contains("pickled") && hint.contains("safe_serialization"), "{error}");
        assert!(refused(&[("config.json", "{")]).0.contains("no valid JSON"));
    }
}
