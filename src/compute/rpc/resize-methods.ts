// RPC methods of resizes and cold migrations (table 5.1, section 5.7).
import type { ComputeOperations } from '../operations.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { dict, flag, listOf, object, optional, instanceObject } from './params.ts';
import { XEFM, XTEFM } from './wrappers.ts';

const move = { instance: instanceObject(), migration: object('Migration') };
const requestSpec = optional(object('RequestSpec'));
const resizeArgs = {
  ...move,
  flavor: object('Flavor'),
  image: optional(dict()),
  clean_shutdown: optional(flag()),
  request_spec: requestSpec,
};
const prepArgs = {
  ...resizeArgs,
  filter_properties: optional(dict()),
  host_list: optional(listOf(object('Selection'))),
};
const endArgs = { ...move, request_spec: requestSpec };

export function resizeMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [...forwardMethods(operations), ...endMethods(operations)];
}

function forwardMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'prep_resize',
      args: prepArgs,
      wrappers: XTEFM,
      handle: ({ context }, { image, clean_shutdown, request_spec, filter_properties, host_list, ...rest }) =>
        operations.prepResize(context, {
          ...rest,
          image: image ?? {},
          cleanShutdown: clean_shutdown ?? true,
          requestSpec: request_spec,
          filterProperties: filter_properties ?? {},
          hostList: host_list,
        }),
    }),
    rpcMethod({
      name: 'resize_instance',
      args: resizeArgs,
      wrappers: XTEFM,
      handle: ({ context }, { image, clean_shutdown, request_spec, ...rest }) =>
        operations.resize(context, {
          ...rest,
          image: image ?? {},
          cleanShutdown: clean_shutdown ?? true,
          requestSpec: request_spec,
        }),
    }),
    rpcMethod({
      name: 'finish_resize',
      args: move,
      wrappers: XTEFM,
      handle: ({ context }, args) => operations.finishResize(context, args),
    }),
  ];
}

function endMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'confirm_resize',
      args: move,
      wrappers: XEFM,
      handle: ({ context }, args) => operations.confirmResize(context, args),
    }),
    rpcMethod({
      name: 'revert_resize',
      args: endArgs,
      wrappers: XTEFM,
      handle: ({ context }, { request_spec, ...rest }) =>
        operations.revertResize(context, { ...rest, requestSpec: request_spec }),
    }),
    rpcMethod({
      name: 'finish_revert_resize',
      args: move,
      wrappers: XTEFM,
      handle: ({ context }, args) => operations.finishRevertResize(context, args),
    }),
  ];
}
