//! What the project's pages share: a document that needs nothing else, its style sheet, and the frame of its charts.
//!
//! Charts are SVG in a few fixed colours that the style sheet maps to light and dark. Texts in them are numbers and names
//! of the program's own, so that nothing needs escaping.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::chart::MeshStyle;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

/// Everything that is written or drawn as a line of an axis.
pub const INK: RGBColor = RGBColor(0x10, 0x10, 0x10);
/// Lines behind the drawing.
pub const GRID: RGBColor = RGBColor(0xd0, 0xd0, 0xd0);
/// One colour a series, then from the start again; told apart by people who do not see all colours.
pub const SERIES: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xb8, 0x86, 0x0b),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x8a, 0x5a, 0xc8),
    RGBColor(0x80, 0x80, 0x80),
];
/// Width of every chart; small enough that a telephone shows it unscaled.
pub const WIDTH: u32 = 352;

/// What drawing comes to.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A chart of a height in pixels; `label` is what a screen reader says.
pub fn draw(
    height: u32,
    label: &str,
    work: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        // Drawing into a string can fail for a degenerate range only; an empty chart is better than no report.
        let _ = work(&area);
        let _ = area.present();
    }
    svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1)
}

/// Letters of a size in pixels.
pub fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Colour of a series.
pub fn colour(series: usize) -> RGBColor {
    SERIES[series % SERIES.len()]
}

/// A chart's axes and lines, as all charts have them.
pub fn mesh<'a, 'b, X, Y>(
    chart: &'b mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
) -> MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .y_labels(5)
        .label_style(text(12));
    mesh
}

/// A square in the colour of a series.
pub fn swatch(series: usize) -> Markup {
    let RGBColor(red, green, blue) = colour(series);
    let style = format!("background:#{red:02x}{green:02x}{blue:02x}");
    html! { span.swatch style=(style) {} }
}

/// A chart with its caption; `detail` is set smaller.
pub fn figure(caption: &str, detail: &str, svg: String) -> Markup {
    html! { figure { figcaption { (caption) " " span.interval { (detail) } } (PreEscaped(svg)) } }
}

/// A whole page.
pub fn document(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body { main { h1 { (title) } (content) } }
        }
    };
    page.into_string()
}
