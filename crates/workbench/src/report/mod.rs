//! Reports on one or several runs: one self-contained web page, and Markdown.

mod charts;
mod page;
mod study;
mod text;

pub use page::html;
pub use text::markdown;
