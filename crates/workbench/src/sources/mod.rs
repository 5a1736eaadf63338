//! The raw files that sets are made of: one module a kind of file.

pub(crate) mod annotations;
pub(crate) mod esco;
pub(crate) mod given;
pub(crate) mod pairs;
pub(crate) mod table;
pub(crate) mod vacancies;
