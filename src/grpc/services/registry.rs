//! Which function answers which hand-written method.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use prost::Message;
use tokio_stream::{Stream, StreamExt as _};

use super::{
    Context, acl_files, aggregations, cluster, discovery, health, info, map_entries, maps, native_stats, peers, raw,
    reloads, runtime_backends, runtime_frontends, runtime_overrides, runtime_servers, spoe_files, spoe_scopes,
    spoe_transactions, stick_tables, storage_certificates, storage_general, storage_maps, transactions,
};
use crate::configuration::ports::Pending;
use crate::discovery::Kind;
use crate::error::{Error, Reason, Result};
use crate::grpc::call::{Answer, Call, Chunks, Transport};
use crate::schema::Schema;
use crate::schema::tables::{Method, MethodId};
use crate::schema::value::{Object, Value};
use crate::schema::wire;

/// Answers one method.
pub(super) type Handler = Box<dyn Fn(Context, Call) -> Pending<'static, Result<Answer>> + Send + Sync>;

/// The messages of a streamed answer, as structs.
pub(super) type Items<A> = Pin<Box<dyn Stream<Item = Result<A>> + Send>>;

/// One message, or several that are joined.
pub(super) enum Reply<A> {
    /// One.
    One(A),
    /// Several.
    Many(Items<A>),
}

/// The handlers of all hand-written methods.
pub(super) fn handlers(schema: &Arc<Schema>) -> HashMap<MethodId, Handler> {
    let mut table = Table { schema: Arc::clone(schema), handlers: HashMap::new() };
    table.configuration();
    table.runtime();
    table.storage();
    table.spoe();
    table.cluster();
    table.discovery();
    table.aggregation();
    table.handlers
}

struct Table {
    schema: Arc<Schema>,
    handlers: HashMap<MethodId, Handler>,
}

impl Table {
    fn configuration(&mut self) {
        self.unary("configuration.v2.TransactionService/ListTransactions", transactions::list);
        self.unary("configuration.v2.TransactionService/GetTransaction", transactions::get);
        self.unary("configuration.v2.TransactionService/BeginTransaction", transactions::begin);
        self.unary("configuration.v2.TransactionService/CommitTransaction", transactions::commit);
        self.unary("configuration.v2.TransactionService/DeleteTransaction", transactions::delete);
        self.unary("configuration.v2.RawConfigurationService/GetVersion", raw::version);
        self.unary("configuration.v2.RawConfigurationService/GetRawConfiguration", raw::get);
        self.unary("configuration.v2.RawConfigurationService/PushRawConfiguration", raw::push);
        self.unary("configuration.v2.ReloadService/ListReloads", reloads::list);
        self.unary("configuration.v2.ReloadService/GetReload", reloads::get);
        self.stream("configuration.v2.ReloadService/WatchReload", reloads::watch);
    }

    fn runtime(&mut self) {
        self.unary("runtime.v2.InfoService/GetInfo", info::get);
        let places = Arc::new(info::Places::new(&self.schema.tables));
        let processes = move |context, _| info::processes(context, Arc::clone(&places));
        self.objects("runtime.v2.InfoService/GetProcessInfo", processes);
        self.unary("runtime.v2.HealthService/GetHealth", health::get);
        self.unary("runtime.v2.MapService/ListMaps", maps::list);
        self.unary("runtime.v2.MapService/GetMap", maps::get);
        self.upload("runtime.v2.MapService/CreateMap", maps::create);
        self.unary("runtime.v2.MapService/AddMapEntries", maps::add_entries);
        self.list("runtime.v2.MapService/AddMapEntries", maps::add_many);
        self.named("runtime.v2.MapService/ClearMap", maps::clear);
        self.reply("runtime.v2.MapEntryService/ListMapEntries", map_entries::list);
        self.stream("runtime.v2.MapEntryService/ExportMapEntries", map_entries::export);
        self.named("runtime.v2.MapEntryService/GetMapEntry", map_entries::get);
        self.named("runtime.v2.MapEntryService/CreateMapEntry", map_entries::create);
        self.named("runtime.v2.MapEntryService/ReplaceMapEntry", map_entries::replace);
        self.named("runtime.v2.MapEntryService/DeleteMapEntry", map_entries::delete);
        self.unary("runtime.v2.AclFileService/ListAclFiles", acl_files::list);
        self.unary("runtime.v2.AclFileService/GetAclFile", acl_files::get);
        self.reply("runtime.v2.AclFileEntryService/ListAclFileEntries", acl_files::entries);
        self.unary("runtime.v2.AclFileEntryService/GetAclFileEntry", acl_files::get_entry);
        self.unary("runtime.v2.AclFileEntryService/CreateAclFileEntry", acl_files::create_entry);
        self.unary("runtime.v2.AclFileEntryService/AddAclFileEntries", acl_files::add_entries);
        self.unary("runtime.v2.AclFileEntryService/DeleteAclFileEntry", acl_files::delete_entry);
        self.unary("runtime.v2.RuntimeBackendService/ListRuntimeBackends", runtime_backends::list);
        self.unary("runtime.v2.RuntimeBackendService/AddRuntimeBackend", runtime_backends::add);
        self.unary("runtime.v2.RuntimeBackendService/PublishRuntimeBackend", runtime_backends::publish);
        self.unary("runtime.v2.RuntimeBackendService/UnpublishRuntimeBackend", runtime_backends::unpublish);
        self.unary("runtime.v2.RuntimeBackendService/DeleteRuntimeBackend", runtime_backends::delete);
        self.objects("runtime.v2.RuntimeServerService/ListRuntimeServers", runtime_servers::list);
        self.objects("runtime.v2.RuntimeServerService/GetRuntimeServer", runtime_servers::get);
        self.objects("runtime.v2.RuntimeServerService/AddRuntimeServer", runtime_servers::add);
        self.objects("runtime.v2.RuntimeServerService/SetRuntimeServer", runtime_servers::set);
        self.objects("runtime.v2.RuntimeServerService/DeleteRuntimeServer", runtime_servers::delete);
        self.unary("runtime.v2.RuntimeFrontendService/SetRuntimeFrontend", runtime_frontends::set);
        self.unary("runtime.v2.RuntimeOverrideService/ListRuntimeOverrides", runtime_overrides::list);
        self.unary("runtime.v2.RuntimeOverrideService/DropRuntimeOverrides", runtime_overrides::drop_some);
        self.answer("stats.v2.NativeStatsService/GetNativeStats", native_stats::get);
        self.unary("runtime.v2.StickTableService/ListStickTables", stick_tables::list);
        self.unary("runtime.v2.StickTableService/GetStickTable", stick_tables::get);
        self.written("runtime.v2.StickTableService/WatchStickTable", stick_tables::watch);
        self.unary("runtime.v2.StickTableService/ClearStickTable", stick_tables::clear);
        self.stream("runtime.v2.StickTableService/ExportStickTable", stick_tables::export);
        self.unary("runtime.v2.StickTableService/ImportStickTable", stick_tables::import);
        self.unary("runtime.v2.StickTableService/AddStickTablePeer", peers::add);
        self.unary("runtime.v2.StickTableService/ListPeerSessions", peers::sessions);
        self.reply("runtime.v2.StickTableEntryService/ListStickTableEntries", stick_tables::entries);
        self.unary("runtime.v2.StickTableEntryService/SetStickTableEntry", stick_tables::set_entry);
        self.unary("runtime.v2.StickTableEntryService/IncrementStickTableEntry", stick_tables::increment_entry);
    }

    fn storage(&mut self) {
        self.unary("storage.v2.StorageMapService/ListStorageMaps", storage_maps::list);
        self.reply("storage.v2.StorageMapService/GetStorageMap", storage_maps::get);
        self.upload("storage.v2.StorageMapService/CreateStorageMap", storage_maps::create);
        self.upload("storage.v2.StorageMapService/ReplaceStorageMap", storage_maps::replace);
        self.unary("storage.v2.StorageMapService/DeleteStorageMap", storage_maps::delete);
        self.stream("storage.v2.StorageMapService/ExportStorageMap", storage_maps::export_file);
        self.unary("storage.v2.StorageMapService/ImportStorageMap", storage_maps::import_file);
        self.unary("storage.v2.StorageCertificateService/ListStorageCertificates", storage_certificates::list);
        self.unary("storage.v2.StorageCertificateService/GetStorageCertificate", storage_certificates::get);
        self.unary("storage.v2.StorageCertificateService/CreateStorageCertificate", storage_certificates::create);
        self.unary("storage.v2.StorageCertificateService/ReplaceStorageCertificate", storage_certificates::replace);
        self.unary("storage.v2.StorageCertificateService/DeleteStorageCertificate", storage_certificates::delete);
        self.unary("storage.v2.StorageGeneralFileService/ListStorageGeneralFiles", storage_general::list);
        self.reply("storage.v2.StorageGeneralFileService/GetStorageGeneralFile", storage_general::get);
        self.upload("storage.v2.StorageGeneralFileService/CreateStorageGeneralFile", storage_general::create);
        self.upload("storage.v2.StorageGeneralFileService/ReplaceStorageGeneralFile", storage_general::replace);
        self.unary("storage.v2.StorageGeneralFileService/DeleteStorageGeneralFile", storage_general::delete);
        self.stream("storage.v2.StorageGeneralFileService/ExportStorageGeneralFile", storage_general::export_file);
        self.unary("storage.v2.StorageGeneralFileService/ImportStorageGeneralFile", storage_general::import_file);
    }

    fn spoe(&mut self) {
        self.unary("spoe.v2.SpoeFileService/ListSpoeFiles", spoe_files::list);
        self.unary("spoe.v2.SpoeFileService/GetSpoeFile", spoe_files::get);
        self.unary("spoe.v2.SpoeFileService/CreateSpoeFile", spoe_files::create);
        self.unary("spoe.v2.SpoeFileService/DeleteSpoeFile", spoe_files::delete);
        self.unary("spoe.v2.SpoeFileService/GetSpoeVersion", spoe_files::version);
        self.unary("spoe.v2.SpoeScopeService/ListSpoeScopes", spoe_scopes::list);
        self.unary("spoe.v2.SpoeScopeService/GetSpoeScope", spoe_scopes::get);
        self.unary("spoe.v2.SpoeScopeService/CreateSpoeScope", spoe_scopes::create);
        self.unary("spoe.v2.SpoeScopeService/DeleteSpoeScope", spoe_scopes::delete);
        self.unary("spoe.v2.SpoeTransactionService/ListSpoeTransactions", spoe_transactions::list);
        self.unary("spoe.v2.SpoeTransactionService/GetSpoeTransaction", spoe_transactions::get);
        self.unary("spoe.v2.SpoeTransactionService/BeginSpoeTransaction", spoe_transactions::begin);
        self.unary("spoe.v2.SpoeTransactionService/CommitSpoeTransaction", spoe_transactions::commit);
        self.unary("spoe.v2.SpoeTransactionService/DeleteSpoeTransaction", spoe_transactions::delete);
    }

    fn cluster(&mut self) {
        self.unary("cluster.v2.ClusterService/GetCluster", cluster::get);
        self.unary("cluster.v2.ClusterService/JoinCluster", cluster::join);
        self.unary("cluster.v2.ClusterService/ReplaceCluster", cluster::replace);
        self.unary("cluster.v2.ClusterService/LeaveCluster", cluster::leave);
        self.unary("cluster.v2.ClusterService/RenewClusterCertificate", cluster::renew);
    }

    fn discovery(&mut self) {
        for (kind, service, one, many) in [
            (Kind::Consul, "discovery.v2.ConsulService", "Consul", "Consuls"),
            (Kind::Aws, "discovery.v2.AwsRegionService", "AwsRegion", "AwsRegions"),
        ] {
            let path = |verb: &str, noun: &str| format!("{service}/{verb}{noun}");
            self.objects(&path("List", many), move |c, q| ready(discovery::list(c, kind, &q)));
            self.objects(&path("Get", one), move |c, q| ready(discovery::get(c, kind, &q)));
            self.objects(&path("Create", one), move |c, q| discovery::create(c, kind, q));
            self.objects(&path("Replace", one), move |c, q| discovery::replace(c, kind, q));
            self.objects(&path("Delete", one), move |c, q| discovery::delete(c, kind, q));
        }
        self.stream("discovery.v2.ConsulService/WatchConsul", discovery::watch_consul);
        self.stream("discovery.v2.AwsRegionService/WatchAwsRegion", discovery::watch_region);
    }

    fn aggregation(&mut self) {
        self.unary("aggregation.v2.AggregationService/ListAggregations", aggregations::list);
        self.unary("aggregation.v2.AggregationService/GetAggregation", aggregations::get);
        self.unary("aggregation.v2.AggregationService/CreateAggregation", aggregations::create);
        self.unary("aggregation.v2.AggregationService/ReplaceAggregation", aggregations::replace);
        self.unary("aggregation.v2.AggregationService/UpdateAggregation", aggregations::update);
        self.unary("aggregation.v2.AggregationService/DeleteAggregation", aggregations::delete);
        self.unary("aggregation.v2.AggregationService/GetAggregationStatus", aggregations::status);
        self.stream("aggregation.v2.AggregationService/WatchAggregationStatus", aggregations::watch);
    }

    /// A method with one answer.
    fn unary<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<A>> + Send + 'static,
    {
        self.reply(path, move |context, request| async move { function(context, request).await.map(Reply::One) });
    }

    /// A method that remembers names of a worker. What another worker, which has followed, does not know is looked up
    /// again with that one.
    fn named<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + Clone + 'static,
        A: Message + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<A>> + Send + 'static,
    {
        self.unary(path, move |context, request: Q| async move {
            let worker = context.runtime.worker();
            match function(context.clone(), request.clone()).await {
                Err(error) if error.reason() == Reason::ObjectNotFound && context.runtime.worker() != worker => {
                    function(context, request).await
                }
                answer => answer,
            }
        });
    }

    /// A method that works on objects instead of structs.
    fn objects<F, R>(&mut self, path: &str, function: F)
    where
        F: Fn(Context, Object) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Object>> + Send + 'static,
    {
        self.answer(path, move |context, request| {
            let answer = function(context, request);
            async move { answer.await.map(Answer::Message) }
        });
    }

    /// The same with an answer of any form.
    fn answer<F, R>(&mut self, path: &str, function: F)
    where
        F: Fn(Context, Object) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Answer>> + Send + 'static,
    {
        if let Some(id) = self.schema.tables.method_by_path.get(format!("/backstay.{path}").as_str()).copied() {
            let handler = move |context: Context, call: Call| -> Pending<'static, Result<Answer>> {
                Box::pin(function(context, call.request))
            };
            self.handlers.insert(id, Box::new(handler));
        }
    }

    /// A server-streaming method.
    fn stream<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<Items<A>>> + Send + 'static,
    {
        self.reply(path, move |context, request| async move { function(context, request).await.map(Reply::Many) });
    }

    /// A server-streaming method whose messages are written already.
    fn written<Q, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<Chunks>> + Send + 'static,
    {
        let Some(id) = self.schema.tables.method_by_path.get(format!("/backstay.{path}").as_str()).copied() else {
            return;
        };
        let schema = Arc::clone(&self.schema);
        let handler = move |context: Context, call: Call| -> Pending<'static, Result<Answer>> {
            let schema = Arc::clone(&schema);
            Box::pin(async move {
                let Method { input, output, .. } = schema.tables.methods[call.method];
                let messages = function(context, to_struct::<Q>(&schema, input, &call.request)?).await?;
                if call.transport == Transport::Grpc {
                    return Ok(Answer::Written(messages));
                }
                let objects = messages.map(move |bytes| bytes.and_then(|b| wire::decode(&schema.tables, output, &b)));
                Ok(Answer::Stream(Box::pin(objects)))
            })
        };
        self.handlers.insert(id, Box::new(handler));
    }

    /// A method that takes bytes while they arrive: over REST those of the body, else those of its field `data`.
    fn upload<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q, Chunks) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<A>> + Send + 'static,
    {
        self.method(path, move |context, request, chunks| async move {
            function(context, request, chunks).await.map(Reply::One)
        });
    }

    /// How a method of before takes a list that is long: in pieces of its request in the form of the wire, and it answers
    /// in pieces of its response.
    fn list<Q, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        F: Fn(Context, Q, Chunks) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<Chunks>> + Send + 'static,
    {
        let Some(id) = self.schema.tables.method_by_path.get(format!("/backstay.{path}").as_str()).copied() else {
            return;
        };
        let (schema, Some(whole)) = (Arc::clone(&self.schema), self.handlers.remove(&id)) else { return };
        let handler = move |context: Context, mut call: Call| -> Pending<'static, Result<Answer>> {
            let Some(upload) = call.upload.take() else {
                return whole(context, call);
            };
            let schema = Arc::clone(&schema);
            Box::pin(async move {
                let Method { input, output, .. } = schema.tables.methods[call.method];
                let request = to_struct::<Q>(&schema, input, &call.request)?;
                let answer = function(context, request, upload.chunks).await?;
                if call.transport == Transport::Grpc {
                    return Ok(Answer::Written(answer));
                }
                let objects = answer.map(move |bytes| bytes.and_then(|b| wire::decode(&schema.tables, output, &b)));
                Ok(Answer::Stream(Box::pin(objects)))
            })
        };
        self.handlers.insert(id, Box::new(handler));
    }

    /// A method that answers either way, by what its caller needs.
    fn reply<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<Reply<A>>> + Send + 'static,
    {
        self.method(path, move |context, request, _| function(context, request));
    }

    fn method<Q, A, F, R>(&mut self, path: &str, function: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(Context, Q, Chunks) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<Reply<A>>> + Send + 'static,
    {
        let Some(id) = self.schema.tables.method_by_path.get(format!("/backstay.{path}").as_str()).copied() else {
            return;
        };
        let schema = Arc::clone(&self.schema);
        let handler = move |context: Context, mut call: Call| -> Pending<'static, Result<Answer>> {
            let schema = Arc::clone(&schema);
            Box::pin(async move {
                let method = &schema.tables.methods[call.method];
                let output = method.output;
                let chunks = chunks(&schema, method, &mut call);
                // A request may hold a map of a million entries: one form of it is enough.
                let request = to_struct::<Q>(&schema, method.input, &std::mem::take(&mut call.request))?;
                match function(context, request, chunks).await? {
                    Reply::One(answer) => Ok(Answer::Message(to_object(&schema, output, &answer)?)),
                    Reply::Many(items) => {
                        let objects = items.map(move |item| item.and_then(|a| to_object(&schema, output, &a)));
                        Ok(Answer::Stream(Box::pin(objects)))
                    }
                }
            })
        };
        self.handlers.insert(id, Box::new(handler));
    }
}

/// The bytes that the call brings apart from its request, or that an upload over gRPC has in it.
fn chunks(schema: &Schema, method: &Method, call: &mut Call) -> Chunks {
    if let Some(upload) = call.upload.take() {
        return upload.chunks;
    }
    let field = schema.tables.messages[method.input].field_named("data").filter(|_| method.upload);
    match field.and_then(|field| call.request.take(field)) {
        Some(Value::Bytes(data)) => Box::pin(tokio_stream::once(Ok(data))),
        _ => Box::pin(tokio_stream::empty()),
    }
}

/// A message as the struct that it has.
pub(super) fn to_struct<Q: Message + Default>(schema: &Schema, message: usize, object: &Object) -> Result<Q> {
    let mut bytes = Vec::new();
    wire::encode(&schema.tables, message, object, &mut bytes);
    Q::decode(bytes.as_slice()).map_err(Error::internal)
}

/// A struct as the message that it is of.
pub(super) fn to_object<A: Message>(schema: &Schema, message: usize, answer: &A) -> Result<Object> {
    wire::decode(&schema.tables, message, &answer.encode_to_vec())
}
