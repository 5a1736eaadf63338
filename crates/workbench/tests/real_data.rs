//! The sets of the real data against ready-made copies. Needs `UWE_BENCH_DATA`: a folder with the raw files, and the
//! ready-made sets in its folder `tasks`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::path::PathBuf;
use workbench::{Catalogue, CatalogueOptions, verify};

#[test]
#[ignore = "needs UWE_BENCH_DATA, a folder with the benchmark's raw files and ready-made sets"]
fn every_ready_made_set_is_reproduced_element_by_element() {
    let folder =
        PathBuf::from(std::env::var_os("UWE_BENCH_DATA").expect("UWE_BENCH_DATA names the data folder"));
    let catalogue = Catalogue::open(&folder, CatalogueOptions::default()).unwrap();
    let verdicts = verify(&catalogue, &folder.join("tasks")).unwrap();
    assert!(verdicts.len() >= 19, "{} sets", verdicts.len());
    for verdict in verdicts {
        assert_eq!(verdict.problem, None, "{}", verdict.key);
    }
}
