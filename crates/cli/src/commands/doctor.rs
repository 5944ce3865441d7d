//! `llada doctor`: what this machine has, and what the program makes of it.

use std::fs;

use anyhow::Result;
use llada::Compute;
use llada_kernels::{Cpu, peak};
use serde_json::{Value, json};

use crate::{args::Doctor, locate::Shipped, term, view::units};

/// Prints the findings as text, or as JSON.
pub fn run(args: Doctor) -> Result<()> {
    let findings = findings(args.threads.threads.into())?;
    if args.json {
        return term::answer(&serde_json::to_string_pretty(&findings)?);
    }
    term::answer(&text(&findings))
}

fn findings(threads: usize) -> Result<Value> {
    let cpu = Cpu::new(threads)?;
    let features: serde_json::Map<String, Value> =
        Cpu::features().into_iter().map(|(name, has)| (name.to_owned(), has.into())).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processor": processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        "features": features,
        "kernels": cpu.isa().to_string(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": cpu.threads(),
        "memory_bytes": memory("MemTotal"),
        "memory_available_bytes": memory("MemAvailable"),
        "peak_f32_flops": peak::f32_flops(&cpu),
        "peak_bf16_flops": cpu.has_bf16().then(|| peak::bf16_flops(&cpu)),
        "compute": Compute::Auto.settled(&cpu),
        "shipped_model": Shipped::Base.folder().ok(),
    }))
}

/// The processor's name in `/proc/cpuinfo`.
fn processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// A size that Linux knows by the name `key`, in bytes; `None` on other systems.
pub fn memory(key: &str) -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/meminfo").ok()?, key)
}

/// The memory that this process has taken so far, in bytes; `None` on other systems than Linux.
pub fn own_memory() -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")
}

/// A size in the text of `/proc/meminfo`, or of another file of its form, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn text(findings: &Value) -> String {
    let plain = |key: &str| match &findings[key] {
        Value::Null => "unknown".to_owned(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let bytes = |key: &str| findings[key].as_u64().map_or("unknown".into(), units::bytes);
    let named = |wanted: bool| {
        let features = findings["features"].as_object().into_iter().flatten();
        let names: Vec<&str> =
            features.filter(|(_, has)| **has == wanted).map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    let peak = findings["peak_f32_flops"].as_f64().unwrap_or(0.0);
    let shipped = match &findings["shipped_model"] {
        Value::Null => format!("`{}` cannot be unpacked here", Shipped::Base.name()),
        _ => plain("shipped_model"),
    };
    let rows = [
        ("llada", plain("version")),
        ("system", format!("{} {}", plain("system"), plain("architecture"))),
        ("processor", plain("processor")),
        ("instructions", named(true)),
        ("  missing", named(false)),
        ("kernels", plain("kernels")),
        ("threads", format!("{} of {} cores", plain("threads"), plain("cores"))),
        (
            "memory",
            format!("{}, {} available", bytes("memory_bytes"), bytes("memory_available_bytes")),
        ),
        ("f32 peak", format!("{:.1} GFLOP/s, measured on these threads", peak / 1e9)),
        ("bf16 peak", bf16_peak(findings)),
        ("training in", plain("compute")),
        ("shipped model", shipped),
    ];
    units::table(&rows)
}

/// The speed of products of `bf16`, or that there are none.
fn bf16_peak(findings: &Value) -> String {
    match findings["peak_bf16_flops"].as_f64() {
        Some(peak) => format!("{:.1} GFLOP/s", peak / 1e9),
        None => "no such products".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_and_damage_is_not_fatal() {
        let text = "MemTotal:       16 kB\nMemAvailable:   x kB\nSwap: 3\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(16 * 1024));
        assert_eq!(meminfo(text, "MemAvailable"), None);
        assert_eq!(meminfo(text, "Swap"), None);
        assert_eq!(meminfo("", "MemTotal"), None);
        assert_eq!(processor("flags: x\nmodel name\t: A Chip \n"), Some("A Chip"));
        assert_eq!(processor("model name"), None);
    }
}
