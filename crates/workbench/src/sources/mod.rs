//! The raw files that sets are made of: one module a kind of file.

pub mod annotations;
pub mod esco;
pub(crate) mod given;
pub(crate) mod pairs;
pub mod table;
pub mod vacancies;
