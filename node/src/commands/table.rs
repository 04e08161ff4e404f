//! Rows of text in columns, amounts and progress for people.

use indicatif::{ProgressBar, ProgressStyle};

/// Prints rows under a head, columns as wide as their widest cell.
pub(super) fn print(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("    ").trim_end());
    };
    line(head.to_vec());
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

/// Bytes as `3.8 MB`, decimal as disks and files are labelled.
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n >= 1e9 => format!("{:.1} GB", n / 1e9),
        _ if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        _ if n >= 1e3 => format!("{:.0} kB", n / 1e3),
        _ => format!("{n} B"),
    }
}

/// A bar for so many bytes, on the error output of a terminal.
pub(super) fn bar(n_bytes: u64, message: impl Into<String>) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::new(n_bytes).with_message(message.into());
    bar.set_style(style.expect("the template is right").progress_chars("=> "));
    bar
}
