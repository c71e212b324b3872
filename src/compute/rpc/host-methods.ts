// RPC methods on the host itself, and the questions that a host without shared storage answers by no.
import { cacheImages } from '../images/cache-images.ts';
import type { ComputeServices } from '../types.ts';
import { type RpcMethod, rpcMethod } from './method.ts';
import { dict, flag, listOf, optional, text } from './params.ts';
import { X } from './wrappers.ts';

const nothing = {};
const enabledArgs = { enabled: flag() };
const storageArgs = { data: optional(dict()) };
const imagesArgs = { image_ids: listOf(text()) };

export function hostMethods(services: ComputeServices): readonly RpcMethod[] {
  const { virt, tracker } = services;
  return [
    rpcMethod({
      name: 'get_host_uptime',
      args: nothing,
      wrappers: X,
      handle: async ({ signal }) => (await virt.hostFacts(signal)).uptime,
    }),
    rpcMethod({
      name: 'set_host_enabled',
      args: enabledArgs,
      wrappers: X,
      async handle({ signal }, { enabled }) {
        await tracker.setDisabled(!enabled, signal);
        return enabled ? 'enabled' : 'disabled';
      },
    }),
    rpcMethod({
      name: 'check_instance_shared_storage',
      args: storageArgs,
      wrappers: X,
      handle: async () => false,
    }),
    rpcMethod({
      name: 'cache_images',
      args: imagesArgs,
      wrappers: [],
      handle: ({ context, signal }, args) => cacheImages(services, context, args.image_ids, signal),
    }),
  ];
}
