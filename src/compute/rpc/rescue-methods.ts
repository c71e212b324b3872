// RPC methods of rescue (table 5.1).
import type { ComputeOperations } from '../operations.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { flag, optional, text, instanceObject } from './params.ts';
import { XTEF } from './wrappers.ts';

const instance = instanceObject();
const rescueArgs = {
  instance,
  rescue_password: optional(text()),
  rescue_image_ref: optional(text()),
  clean_shutdown: optional(flag()),
};

export function rescueMethods(operations: ComputeOperations): readonly RpcMethod[] {
  return [
    rpcMethod({
      name: 'rescue_instance',
      args: rescueArgs,
      wrappers: XTEF,
      handle: ({ context }, args) =>
        operations.rescue(context, args.instance, {
          password: args.rescue_password,
          imageId: args.rescue_image_ref === '' ? null : args.rescue_image_ref,
          cleanShutdown: args.clean_shutdown ?? true,
        }),
    }),
    rpcMethod({
      name: 'unrescue_instance',
      args: { instance },
      wrappers: XTEF,
      handle: ({ context }, args) => operations.unrescue(context, args.instance),
    }),
  ];
}
