// Handing an instance back to the conductor, which tries the next host (nova-compute-contract section 6.2).
import type { RpcClient, WireArgs } from '#src/messaging/types.ts';
import type { RequestContext } from './context.ts';
import type { NovaObject } from './objects/object.ts';
import { toWire } from './objects/wire.ts';

type Plain = Readonly<Record<string, unknown>>;

/** What build_and_run_instance was given; passed on as it came, `filterProperties.retry` brought up to date. */
export interface BuildAgain {
  readonly instance: NovaObject<'Instance'>;
  readonly image: Plain;
  readonly filterProperties: Plain;
  readonly adminPassword: string | null;
  readonly injectedFiles: readonly unknown[];
  readonly requestedNetworks: NovaObject<'NetworkRequestList'> | null;
  readonly securityGroups: readonly string[];
  readonly requestSpec: NovaObject<'RequestSpec'> | null;
  /** The hosts left to try. */
  readonly hostList: readonly NovaObject<'Selection'>[] | null;
}

export interface ResizeAgain {
  readonly instance: NovaObject<'Instance'>;
  readonly filterProperties: Plain;
  readonly flavor: NovaObject<'Flavor'>;
  readonly requestSpec: NovaObject<'RequestSpec'> | null;
  readonly cleanShutdown: boolean;
  readonly hostList: readonly NovaObject<'Selection'>[] | null;
}

export interface ComputeTask {
  /** A build that failed here goes to the next host. */
  buildInstances(context: RequestContext, build: BuildAgain): Promise<void>;
  /** A resize or cold migration that could not be prepared here goes to the next host. */
  migrateServer(context: RequestContext, resize: ResizeAgain): Promise<void>;
}

export function createComputeTask(rpc: RpcClient): ComputeTask {
  return {
    buildInstances: (context, build) => rpc.cast(requestOf(context, 'build_instances', '1.19', buildArgs(build))),
    migrateServer: (context, resize) => rpc.cast(requestOf(context, 'migrate_server', '1.20', resizeArgs(resize))),
  };
}

function requestOf(context: RequestContext, method: string, version: string, args: WireArgs) {
  const target = { topic: 'conductor', namespace: 'compute_task', version };
  return { target, method, args: toWire(args) as WireArgs, context: context.toWire() };
}

function buildArgs(build: BuildAgain): WireArgs {
  return {
    instances: [build.instance],
    image: build.image,
    filter_properties: build.filterProperties,
    admin_password: build.adminPassword,
    injected_files: build.injectedFiles,
    requested_networks: build.requestedNetworks,
    security_groups: build.securityGroups,
    request_spec: build.requestSpec,
    host_lists: build.hostList === null ? null : [build.hostList],
  };
}

function resizeArgs(resize: ResizeAgain): WireArgs {
  return {
    instance: resize.instance,
    scheduler_hint: { filter_properties: resize.filterProperties },
    live: false,
    rebuild: false,
    flavor: resize.flavor,
    block_migration: null,
    disk_over_commit: null,
    reservations: null,
    clean_shutdown: resize.cleanShutdown,
    request_spec: resize.requestSpec,
    host_list: resize.hostList,
  };
}
