// RPC methods of volumes (table 5.1, section 5.11).
import type { ComputeOperations } from '../operations.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { flag, instanceObject, object, optional, text } from './params.ts';
import { X, XEF, XTF } from './wrappers.ts';

const instance = instanceObject();
const reserveArgs = {
  instance,
  volume_id: text(),
  device: optional(text()),
  disk_bus: optional(text()),
  device_type: optional(text()),
  tag: optional(text()),
  multiattach: optional(flag()),
};
const attachArgs = { instance, bdm: object('BlockDeviceMapping') };
const detachArgs = { instance, volume_id: text(), attachment_id: optional(text()) };
const swapArgs = { instance, old_volume_id: text(), new_volume_id: text(), new_attachment_id: optional(text()) };
const removeArgs = { instance, volume_id: text(), delete_attachment: optional(flag()) };

export function volumeMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [...attachmentMethods(operations), ...otherMethods(operations)];
}

function attachmentMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'reserve_block_device_name',
      args: reserveArgs,
      wrappers: XTF,
      handle: ({ context }, args) =>
        operations.reserveVolume(context, args.instance, {
          volumeId: args.volume_id,
          device: args.device,
          diskBus: args.disk_bus,
          deviceType: args.device_type,
          tag: args.tag,
          isMultiattach: args.multiattach ?? false,
        }),
    }),
    rpcMethod({
      name: 'attach_volume',
      args: attachArgs,
      wrappers: XEF,
      handle: ({ context }, args) => operations.attachVolume(context, args.instance, args.bdm),
    }),
    rpcMethod({
      name: 'detach_volume',
      args: detachArgs,
      wrappers: XEF,
      handle: ({ context }, { volume_id: volumeId, attachment_id: attachmentId, ...args }) =>
        operations.detachVolume(context, args.instance, { volumeId, attachmentId }),
    }),
  ];
}

function otherMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'swap_volume',
      args: swapArgs,
      wrappers: XEF,
      handle: ({ context }, args) =>
        operations.swapVolume(context, args.instance, {
          oldVolumeId: args.old_volume_id,
          newVolumeId: args.new_volume_id,
          newAttachmentId: args.new_attachment_id,
        }),
    }),
    rpcMethod({
      name: 'remove_volume_connection',
      args: removeArgs,
      wrappers: X,
      handle: ({ context }, { volume_id: volumeId, delete_attachment: deletes, ...args }) =>
        operations.removeVolumeConnection(context, args.instance, { volumeId, deletesAttachment: deletes ?? false }),
    }),
  ];
}
