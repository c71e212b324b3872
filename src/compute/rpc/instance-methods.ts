// RPC methods on instances that this service serves: build, deletion, power, console, events (table 5.1).
import type { ComputeOperations } from '../operations.ts';
import type { ComputeServices } from '../types.ts';
import { consoleOutput } from '../console/console-output.ts';
import { diagnostics, legacyDiagnostics } from '../console/diagnostics.ts';
import type { BuildRequest } from '../build/request.ts';
import type { RebuildWish } from '../images/rebuild-operations.ts';
import { expectList, objectsOf } from '#src/nova/objects/wire.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import {
  type ArgsOf,
  count,
  dict,
  files,
  flag,
  list,
  listOf,
  listOr,
  object,
  oneOf,
  optional,
  text,
  instanceObject,
} from './params.ts';
import { F, X, XEF, XF, XTEF, XTF } from './wrappers.ts';

const instance = instanceObject();
const instances = listOr(instance, object('InstanceList'), (list) => expectList(list, 'InstanceList'));

const aboutInstance = { instance };
const blockDevices = listOr(object('BlockDeviceMapping'), object('BlockDeviceMappingList'), (list) =>
  expectList(list, 'BlockDeviceMappingList'),
);

const terminateArgs = { instance, bdms: optional(blockDevices) };
const stopArgs = { instance, clean_shutdown: optional(flag()) };
const rebootArgs = { instance, reboot_type: oneOf('SOFT', 'HARD') };
const attachArgs = {
  instance,
  network_id: optional(text()),
  port_id: optional(text()),
  requested_ip: optional(text()),
  tag: optional(text()),
};
const consoleArgs = { instance, tail_length: optional(count()) };
const eventArgs = { instances, events: listOf(object('InstanceExternalEvent')) };
const buildArgs = {
  instance,
  image: optional(dict()),
  request_spec: optional(object('RequestSpec')),
  filter_properties: optional(dict()),
  accel_uuids: optional(list()),
  admin_password: optional(text()),
  injected_files: optional(files()),
  requested_networks: optional(object('NetworkRequestList')),
  security_groups: optional(listOf(text())),
  block_device_mapping: optional(object('BlockDeviceMappingList')),
  host_list: optional(listOf(object('Selection'))),
};

const rebuildArgs = {
  instance,
  image_ref: optional(text()),
  orig_image_ref: optional(text()),
  orig_sys_metadata: optional(dict()),
  injected_files: optional(files()),
  new_pass: optional(text()),
  bdms: optional(object('BlockDeviceMappingList')),
  accel_uuids: optional(list()),
  migration: optional(object('Migration')),
  recreate: optional(flag()),
  preserve_ephemeral: optional(flag()),
  target_state: optional(text()),
  reimage_boot_volume: optional(flag()),
};

function rebuildWish(args: ArgsOf<typeof rebuildArgs>): RebuildWish {
  return {
    imageId: args.image_ref,
    before: {
      imageId: args.orig_image_ref,
      metadata: args.orig_sys_metadata as Readonly<Record<string, string | null>> | null,
    },
    isEvacuation: args.recreate ?? false,
    migration: args.migration,
    targetState: args.target_state,
    preserveEphemeral: args.preserve_ephemeral ?? false,
    overwritesRoot: args.reimage_boot_volume ?? false,
    injectedFiles: args.injected_files ?? [],
    adminPassword: args.new_pass,
    blockDevices: args.bdms === null ? [] : objectsOf(args.bdms),
    acceleratorIds: args.accel_uuids ?? [],
  };
}

function buildRequest(args: ArgsOf<typeof buildArgs>): BuildRequest {
  return {
    instance: args.instance,
    image: args.image ?? {},
    requestSpec: args.request_spec,
    filterProperties: args.filter_properties ?? {},
    acceleratorIds: args.accel_uuids ?? [],
    adminPassword: args.admin_password,
    injectedFiles: args.injected_files ?? [],
    requestedNetworks: args.requested_networks,
    securityGroups: args.security_groups ?? [],
    blockDevices: args.block_device_mapping === null ? [] : objectsOf(args.block_device_mapping),
    hostList: args.host_list,
  };
}

export function instanceMethods(services: ComputeServices, operations: ComputeOperations): readonly RpcMethod[] {
  return [
    ...lifeMethods(operations),
    ...powerMethods(operations),
    ...freezeMethods(operations),
    ...imageMethods(operations),
    ...renewalMethods(operations),
    ...interfaceMethods(operations),
    ...otherMethods(services, operations),
  ];
}

function lifeMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'build_and_run_instance',
      args: buildArgs,
      wrappers: XTF,
      handle: async ({ context }, args) => operations.build(context, buildRequest(args)),
    }),
    rpcMethod({
      name: 'terminate_instance',
      args: terminateArgs,
      wrappers: XTEF,
      handle: ({ context }, { bdms, ...args }) => operations.terminate(context, args.instance, bdms ?? undefined),
    }),
    rpcMethod({
      name: 'soft_delete_instance',
      args: aboutInstance,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.softDelete(context, args.instance),
    }),
    rpcMethod({
      name: 'restore_instance',
      args: aboutInstance,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.restore(context, args.instance),
    }),
  ];
}

function powerMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'start_instance',
      args: aboutInstance,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.start(context, args.instance),
    }),
    rpcMethod({
      name: 'stop_instance',
      args: stopArgs,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.stop(context, args.instance, args.clean_shutdown ?? true),
    }),
    rpcMethod({
      name: 'reboot_instance',
      args: rebootArgs,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.reboot(context, args.instance, args.reboot_type),
    }),
  ];
}

function freezeMethods(operations: ComputeOperations): readonly RpcMethod[] {
  const method = (name: string, work: 'pause' | 'unpause' | 'suspend' | 'resume'): RpcMethod =>
    rpcMethod({
      name,
      args: aboutInstance,
      wrappers: XTEF,
      handle: ({ context }, args) => operations[work](context, args.instance),
    });
  return [
    method('pause_instance', 'pause'),
    method('unpause_instance', 'unpause'),
    method('suspend_instance', 'suspend'),
    method('resume_instance', 'resume'),
  ];
}

function imageMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'snapshot_instance',
      args: { instance, image_id: text() },
      wrappers: XTEF,
      handle: ({ context }, args) => operations.snapshot(context, args.instance, args.image_id),
    }),
    rpcMethod({
      name: 'backup_instance',
      args: { instance, image_id: text(), backup_type: text(), rotation: count() },
      wrappers: XTEF,
      handle: ({ context }, { instance: subject, image_id: imageId, backup_type: type, rotation }) =>
        operations.backup(context, subject, { imageId, type, rotation }),
    }),
  ];
}

function renewalMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'rebuild_instance',
      args: rebuildArgs,
      wrappers: XTEF,
      handle: ({ context }, args) => operations.rebuild(context, args.instance, rebuildWish(args)),
    }),
    rpcMethod({
      name: 'shelve_instance',
      args: { instance, image_id: text(), clean_shutdown: optional(flag()) },
      wrappers: XTEF,
      handle: ({ context }, args) =>
        operations.shelve(context, args.instance, {
          imageId: args.image_id,
          cleanShutdown: args.clean_shutdown ?? true,
        }),
    }),
    rpcMethod({
      name: 'shelve_offload_instance',
      args: { instance, clean_shutdown: optional(flag()) },
      wrappers: XTEF,
      handle: ({ context }, args) => operations.shelveOffload(context, args.instance, args.clean_shutdown ?? true),
    }),
    rpcMethod({
      name: 'unshelve_instance',
      args: { instance, image: optional(dict()) },
      wrappers: XTEF,
      handle: ({ context }, args) => operations.unshelve(context, args.instance, args.image ?? {}),
    }),
  ];
}

function interfaceMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'attach_interface',
      args: attachArgs,
      wrappers: XEF,
      handle: ({ context }, args) =>
        operations.attachInterface(context, args.instance, {
          networkId: args.network_id,
          portId: args.port_id,
          address: args.requested_ip,
          tag: args.tag,
        }),
    }),
    rpcMethod({
      name: 'detach_interface',
      args: { instance, port_id: text() },
      wrappers: XEF,
      handle: ({ context }, args) => operations.detachInterface(context, args.instance, args.port_id),
    }),
  ];
}

function otherMethods({ virt }: ComputeServices, operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'get_console_output',
      args: consoleArgs,
      wrappers: XF,
      handle: ({ signal }, args) => consoleOutput(virt, args.instance, args.tail_length, signal),
    }),
    rpcMethod({
      name: 'get_diagnostics',
      args: aboutInstance,
      wrappers: XF,
      handle: ({ signal }, args) => legacyDiagnostics(virt, args.instance, signal),
    }),
    rpcMethod({
      name: 'get_instance_diagnostics',
      args: aboutInstance,
      wrappers: XF,
      handle: ({ signal }, args) => diagnostics(virt, args.instance, signal),
    }),
    rpcMethod({
      name: 'set_admin_password',
      args: { instance, new_pass: text() },
      wrappers: XTEF,
      handle: ({ context }, args) => operations.setAdminPassword(context, args.instance, args.new_pass),
    }),
    rpcMethod({
      name: 'inject_network_info',
      args: aboutInstance,
      wrappers: F,
      handle: ({ context }, args) => operations.refreshNetwork(context, args.instance),
    }),
    rpcMethod({
      name: 'external_instance_event',
      args: eventArgs,
      wrappers: X,
      handle: ({ context, signal }, args) => operations.events.process(context, args, signal),
    }),
  ];
}
