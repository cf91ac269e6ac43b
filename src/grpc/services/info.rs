//! What runs: this program, the machine, the processes of HAProxy.

use std::collections::HashMap;
use std::sync::Arc;

use super::Context;
use crate::error::Result;
use crate::grpc::call::Transport;
use crate::proto::fields::runtime::{get_process_info_response, process_info};
use crate::proto::messages;
use crate::proto::runtime as pb;
use crate::runtime::{Info, InfoValue};
use crate::schema::tables::{FieldIndex, Kind, Tables};
use crate::schema::value::{Object, Value};

pub(super) async fn get(context: Context, _: pb::GetInfoRequest) -> Result<pb::GetInfoResponse> {
    let api = pb::ApiInfo { build_date: "0001-01-01T00:00:00.000Z".into(), version: context.version.into() };
    let system = if context.show_system_info { machine() } else { pb::SystemInfo::default() };
    Ok(pb::GetInfoResponse { api: Some(api), system: Some(system) })
}

/// Facts of the machine, as far as the kernel tells them.
fn machine() -> pb::SystemInfo {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let memory = rustix::system::sysinfo();
    let unit = i64::from(memory.mem_unit);
    let bytes = |units: u64| i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(unit);
    pb::SystemInfo {
        cpu_info: Some(pb::CpuInfo {
            model: line_of("/proc/cpuinfo", "model name").map(|line| line.trim().to_owned()),
            num_cpus: std::thread::available_parallelism().ok().and_then(|n| i64::try_from(n.get()).ok()),
        }),
        hostname: Some(text(name.nodename())),
        mem_info: Some(pb::MemoryInfo {
            dataplaneapi_memory: line_of("/proc/self/status", "VmRSS")
                .and_then(|line| line.split_ascii_whitespace().next()?.parse::<i64>().ok())
                .map(|kibibytes| kibibytes.saturating_mul(1024)),
            free_memory: Some(bytes(memory.freeram)),
            total_memory: Some(bytes(memory.totalram)),
        }),
        os_string: Some(format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.version()))),
        time: Some(jiff::Timestamp::now().as_second()),
        uptime: Some(memory.uptime),
    }
}

/// What stands behind the colon in the first line of that name.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_once(':').map(|(_, value)| value.to_owned())
}

/// Where values of HAProxy stand in what is told of a process, by their names without what the two spell differently:
/// `Curr_Conns` of HAProxy is `curr_conns` here. Found once.
pub(super) struct Places(HashMap<String, Place>);

/// Where one value stands, and whether REST knows it not.
struct Place {
    field: FieldIndex,
    kind: Kind,
    grpc_only: bool,
}

impl Places {
    pub(super) fn new(tables: &Tables) -> Self {
        let fields = &tables.messages[messages::runtime::PROCESS_INFO_ITEM].fields;
        let places = fields.iter().enumerate().map(|(at, field)| {
            let mut name = String::new();
            fold(&field.name, &mut name);
            (name, Place { field: at, kind: field.kind, grpc_only: field.grpc_only })
        });
        Places(places.collect())
    }

    fn item(&self, info: &Info, transport: Transport) -> Object {
        let (mut object, mut folded) = (Object::new(), String::new());
        for (name, value) in info.fields() {
            let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours);
            fold(renamed, &mut folded);
            let known = self.0.get(&folded).filter(|place| !place.grpc_only || transport == Transport::Grpc);
            let Some(Place { field: at, kind, .. }) = known else { continue };
            match (kind, value) {
                (Kind::Int64 | Kind::Int32, InfoValue::Int(number)) => object.set(*at, Value::Int(number)),
                // HAProxy writes a date as 2026/10/17.
                (Kind::String, InfoValue::Text(text)) if name == "Release_date" => {
                    object.set(*at, Value::Str(text.replace('/', "-").into()));
                }
                (Kind::String, InfoValue::Text(text)) => object.set(*at, Value::Str(text.into())),
                (Kind::String, InfoValue::Int(number)) => object.set(*at, Value::Str(number.to_string().into())),
                _ => {}
            }
        }
        object
    }
}

/// Values that HAProxy calls otherwise: its name, ours.
const RENAMED: [(&str, &str); 5] = [
    ("Uptime_sec", "uptime"),
    ("Nbproc", "processes"),
    ("Unstoppable Jobs", "unstoppable"),
    // HAProxy 2.6.
    ("TotalSplicdedBytesOut", "total_spliced_bytes_out"),
    ("SslFrontendSessionReuse_pct", "ssl_frontend_session_reuse"),
];

/// Puts into `out` the letters and digits of a name, in lower case.
fn fold(name: &str, out: &mut String) {
    out.clear();
    out.extend(name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()));
}

pub(super) async fn processes(context: Context, places: Arc<Places>) -> Result<Object> {
    let info = context.runtime.info().await?;
    let socket = context.runtime.addresses().first().map(ToString::to_string).unwrap_or_default();
    let mut process = Object::new();
    process.set(process_info::INFO, Value::Object(places.item(&info, context.transport)));
    process.set(process_info::RUNTIME_API, Value::Str(socket.into()));
    let mut answer = Object::new();
    answer.set(get_process_info_response::PROCESSES, Value::List(vec![Value::Object(process)]));
    Ok(answer)
}
