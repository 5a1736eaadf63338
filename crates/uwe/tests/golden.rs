//! The numbers of the Python reference, from `tests/golden` (generator: `tests/golden/generate.py`).
//!
//! The tiny encoders and all scores run everywhere. The two public encoders are too large to keep here: their
//! tests are ignored unless `UWE_ENCODERS` names a folder that holds them (`scripts/get-encoder` fetches
//! them, `scripts/test` then runs them).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use uwe::{
    Axis, Compute, Encoder, EncoderOptions, InstructionSet, Logits, Precision, Reduction, Scorer, Scoring,
    Space, StateType, TokenStates, score_all,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(folder: &Path, precision: Precision, set: Option<InstructionSet>) -> Encoder {
    let options = EncoderOptions { precision, ..EncoderOptions::default() };
    Encoder::open(folder, options, Compute::new(2, set).unwrap()).unwrap()
}

fn assert_equal_to_reference(folder: &Path, reference: &Path, set: Option<InstructionSet>) {
    let found = open(folder, Precision::F32, set).verify(reference).unwrap();
    assert!(found.texts >= 12 && found.tokens > 100, "{found:?}");
    assert!(found.different_tokens.is_empty(), "{found:?}");
    assert!(found.largest_state_difference < 2e-4, "{found:?}");
    assert!(found.largest_pooled_difference < 2e-4, "{found:?}");
}

#[test]
fn tiny_encoders_equal_the_reference_on_every_instruction_set() {
    for name in ["tiny-bert", "tiny-mpnet"] {
        for set in InstructionSet::all().into_iter().filter(|set| set.is_available()) {
            assert_equal_to_reference(&golden(name), &golden(&format!("{name}.safetensors")), Some(set));
        }
    }
}

/// A copy of a model folder with its weights in another number type.
fn with_weights_as(name: &str, dtype: safetensors::Dtype) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    for file in ["config.json", "modules.json", "tokenizer.json", "1_Pooling/config.json"] {
        std::fs::copy(golden(name).join(file), copy.path().join(file)).unwrap();
    }
    let bytes = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let converted: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let data = values
                .flat_map(|value| match dtype {
                    safetensors::Dtype::F16 => half::f16::from_f32(value).to_le_bytes(),
                    _ => half::bf16::from_f32(value).to_le_bytes(),
                })
                .collect();
            (name, view.shape().to_vec(), data)
        })
        .collect();
    let views = converted.iter().map(|(name, shape, data)| {
        (name, safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize_to_file(views, None, &copy.path().join("model.safetensors")).unwrap();
    copy
}

#[test]
fn half_precision_weight_files_give_the_same_numbers() {
    for name in ["tiny-bert", "tiny-mpnet"] {
        for dtype in [safetensors::Dtype::F16, safetensors::Dtype::BF16] {
            // The fixture's weights are whole in bf16 and nearly so in f16 (small ones lose their last bits).
            let folder = with_weights_as(name, dtype);
            let found = open(folder.path(), Precision::F32, None)
                .verify(&golden(&format!("{name}.safetensors")))
                .unwrap();
            let tolerance = if dtype == safetensors::Dtype::BF16 { 2e-4 } else { 2e-3 };
            assert!(found.largest_state_difference < tolerance, "{name} {dtype:?} {found:?}");
        }
    }
}

#[test]
fn narrow_precisions_stay_close() {
    for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
        for name in ["tiny-bert", "tiny-mpnet"] {
            let found =
                open(&golden(name), precision, None).verify(&golden(&format!("{name}.safetensors"))).unwrap();
            assert!(found.smallest_cosine > 0.9995, "{precision} {found:?}");
        }
    }
}

/// Token states of some of a fixture's texts.
fn states(tensors: &SafeTensors<'_>, chosen: &[usize]) -> TokenStates {
    let whole = |name: &str| -> Vec<i64> {
        let data = tensors.tensor(name).unwrap();
        data.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let view = tensors.tensor("token_embeddings").unwrap();
    let dimension = view.shape()[1];
    let all = real(tensors, "token_embeddings");
    let bounds = whole("offsets");
    let (mut values, mut offsets) = (Vec::new(), vec![0]);
    for index in chosen {
        let range = bounds[*index] as usize * dimension..bounds[index + 1] as usize * dimension;
        values.extend_from_slice(&all[range]);
        offsets.push(values.len() / dimension);
    }
    TokenStates::new(values, offsets, dimension).unwrap()
}

fn real(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap();
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The scorer of a fixture's matrix.
fn scoring(name: &str) -> Scoring {
    let parts: Vec<&str> = name.split('_').collect();
    let logits = |text: &str| match text {
        "raw" => Logits::Raw,
        "unit" => Logits::UnitTarget,
        _ => Logits::Cosine,
    };
    let scorer = match parts[0] {
        "cosine" => Scorer::Cosine,
        "maxsim" => Scorer::MaxSim { reduction: Reduction::Sum },
        "pooled" => Scorer::SoftPooled { logits: logits(parts[1]), temperature: parts[2].parse().unwrap() },
        _ => Scorer::SoftLateInteraction {
            logits: logits(parts[1]),
            axis: match parts[2] {
                "target" => Axis::Target,
                "query" => Axis::Query,
                _ => Axis::Both,
            },
            temperature: parts[3].parse().unwrap(),
            reduction: Reduction::Mean,
        },
    };
    Scoring { scorer, special_tokens: !name.ends_with("_content") }
}

#[test]
fn scores_of_every_scorer_equal_the_reference() {
    for name in ["tiny-bert", "tiny-mpnet", "all-MiniLM-L6-v2", "all-mpnet-base-v2"] {
        let bytes = std::fs::read(golden(&format!("{name}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let list = |key: &str| -> Vec<usize> {
            serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap()
        };
        let (queries, targets) = (states(&tensors, &list("queries")), states(&tensors, &list("targets")));
        let mut compared = 0;
        for matrix in tensors.names().into_iter().filter(|name| name.starts_with("score.")) {
            let expected = real(&tensors, matrix);
            let scoring = scoring(matrix.trim_start_matches("score."));
            // Half-precision states keep about three decimals of a score.
            for (stored, tolerance) in [(StateType::F32, 1e-5), (StateType::F16, 1e-3)] {
                let space = Space::from_states(&targets, (1, 1), stored).unwrap();
                for set in InstructionSet::all().into_iter().filter(|set| set.is_available()) {
                    let compute = Compute::new(1, Some(set)).unwrap();
                    let scores = score_all(&compute, &queries, &space, &scoring).unwrap().concat();
                    assert_eq!(scores.len(), expected.len());
                    for (score, expected) in scores.iter().zip(&expected) {
                        assert!(
                            (score - expected).abs() < tolerance * expected.abs().max(1.0),
                            "{name} {matrix} {stored:?} {set}: {score}, not {expected}"
                        );
                    }
                }
            }
            compared += 1;
        }
        assert_eq!(compared, 16, "{name}");
    }
}

fn encoders() -> PathBuf {
    let folder = std::env::var_os("UWE_ENCODERS").expect("UWE_ENCODERS names the folder with the encoders");
    PathBuf::from(folder)
}

/// The model that comes with the project, compared with the reference.
#[test]
fn the_bundled_model_equals_the_reference_in_every_precision() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/uwe-mini");
    let reference = golden("uwe-mini.safetensors");
    assert_equal_to_reference(&folder, &reference, None);
    for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
        let found = open(&folder, precision, None).verify(&reference).unwrap();
        assert!(found.smallest_cosine >= 0.9999, "{precision} {found:?}");
    }
}

#[test]
#[ignore = "needs all-MiniLM-L6-v2 in the folder that UWE_ENCODERS names"]
fn all_minilm_l6_v2_equals_the_reference() {
    let folder = encoders().join("all-MiniLM-L6-v2");
    assert_equal_to_reference(&folder, &golden("all-MiniLM-L6-v2.safetensors"), None);
}

#[test]
#[ignore = "needs all-mpnet-base-v2 in the folder that UWE_ENCODERS names"]
fn all_mpnet_base_v2_equals_the_reference() {
    let folder = encoders().join("all-mpnet-base-v2");
    assert_equal_to_reference(&folder, &golden("all-mpnet-base-v2.safetensors"), None);
}

#[test]
#[ignore = "needs all-MiniLM-L6-v2 in the folder that UWE_ENCODERS names"]
fn narrow_precisions_of_all_minilm_l6_v2_keep_a_cosine_of_four_nines() {
    for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
        let encoder = open(&encoders().join("all-MiniLM-L6-v2"), precision, None);
        let found = encoder.verify(&golden("all-MiniLM-L6-v2.safetensors")).unwrap();
        assert!(found.smallest_cosine >= 0.9999, "{precision} {found:?}");
    }
}

/// Compares with the golden outputs that stand beside the checkout, where they do.
#[test]
#[ignore = "needs the folders that UWE_ENCODERS and UWE_REFERENCE name"]
fn the_full_reference_is_met() {
    let reference = PathBuf::from(std::env::var_os("UWE_REFERENCE").expect("UWE_REFERENCE names a folder"));
    let texts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(reference.join("texts.json")).unwrap()).unwrap();
    let texts: Vec<&str> = texts["texts50"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    for name in ["all-MiniLM-L6-v2", "all-mpnet-base-v2"] {
        let options = EncoderOptions { max_tokens: 128, ..EncoderOptions::default() };
        let encoder = Encoder::open(&encoders().join(name), options, Compute::new(2, None).unwrap()).unwrap();
        let encoded = encoder.encode(&texts).unwrap();
        let bytes = std::fs::read(reference.join(name).join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let ids: Vec<i64> = tensors
            .tensor("input_ids")
            .unwrap()
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let own: Vec<i64> =
            encoded.tokens.iter().flat_map(|t| t.ids.iter().map(|id| i64::from(*id))).collect();
        assert_eq!(own, ids, "{name}");
        let pooled: Vec<f32> = (0..50).flat_map(|i| encoder.pool(encoded.states.text(i))).collect();
        let unit: Vec<f32> = (0..50).flat_map(|i| encoder.pool_to_unit(encoded.states.text(i))).collect();
        for (what, own) in [
            ("token_embeddings", encoded.states.values()),
            ("mean_pooled", &pooled),
            ("mean_pooled_normalized", &unit),
            ("st_encode_batched", &unit),
        ] {
            let expected = real(&tensors, what);
            assert_eq!(own.len(), expected.len());
            let difference = own.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 2e-4, "{name} {what} {difference}");
        }
        assert_eq!(full_scores(&reference.join(name)), 26, "{name}");
    }
}

/// Compares every score matrix of a reference folder; returns how many there were.
fn full_scores(folder: &Path) -> usize {
    let two_sided = std::fs::read(folder.join("uwe_two_sided.safetensors")).unwrap();
    let pooled = std::fs::read(folder.join("reference.safetensors")).unwrap();
    let (two_sided, pooled) =
        (SafeTensors::deserialize(&two_sided).unwrap(), SafeTensors::deserialize(&pooled).unwrap());
    let side = |name: &str| {
        let offsets = two_sided.tensor(&format!("{name}_offsets")).unwrap();
        let offsets = offsets
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize)
            .collect();
        let states = format!("{name}_token_embeddings");
        let dimension = two_sided.tensor(&states).unwrap().shape()[1];
        TokenStates::new(real(&two_sided, &states), offsets, dimension).unwrap()
    };
    let (queries, targets) = (side("query"), side("target"));
    let space = Space::from_states(&targets, (1, 1), StateType::F32).unwrap();
    let compute = Compute::new(2, None).unwrap();
    let mut compared = 0;
    for (tensors, name) in two_sided
        .names()
        .into_iter()
        .map(|name| (&two_sided, name))
        .chain(pooled.names().into_iter().map(|name| (&pooled, name)))
    {
        let parts: Vec<&str> = name.split('_').collect();
        let logits = |text: &str| match text {
            "raw" => Logits::Raw,
            "stnorm" => Logits::UnitTarget,
            _ => Logits::Cosine,
        };
        let temperature = |text: &str| text.trim_start_matches("tau").parse().unwrap();
        let reduction = |text: &str| if text == "sum" { Reduction::Sum } else { Reduction::Mean };
        let scorer = match parts[..] {
            ["cosine"] => Scorer::Cosine,
            ["maxsim"] => Scorer::MaxSim { reduction: Reduction::Sum },
            ["soft", kind, tau] => Scorer::SoftPooled { logits: logits(kind), temperature: temperature(tau) },
            ["uwe", kind, tau, how] => Scorer::SoftLateInteraction {
                logits: logits(kind),
                temperature: temperature(tau),
                axis: Axis::Target,
                reduction: reduction(how),
            },
            ["uwe", "otheraxis", kind, tau, how] => Scorer::SoftLateInteraction {
                logits: logits(kind),
                temperature: temperature(tau),
                axis: Axis::Query,
                reduction: reduction(how),
            },
            _ => continue,
        };
        let expected = real(tensors, name);
        let scores =
            score_all(&compute, &queries, &space, &Scoring { scorer, special_tokens: true }).unwrap();
        for (score, expected) in scores.concat().iter().zip(&expected) {
            assert!((score - expected).abs() < 1e-5, "{name}: {score}, not {expected}");
        }
        compared += 1;
    }
    compared
}
