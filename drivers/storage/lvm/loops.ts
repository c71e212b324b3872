// Loop devices of files that pools lie on. They stay attached until the pool is deleted.
import type { Host } from '#src/host/host.ts';

/** undefined: it is not attached. */
export async function attachedLoop(host: Host, path: string, signal: AbortSignal): Promise<string | undefined> {
  const { stdout } = await host.run(['losetup', '--noheadings', '--output', 'NAME', '-j', path], { signal });
  const [device = ''] = stdout.trim().split('\n');
  return device.trim() === '' ? undefined : device.trim();
}

export async function attachLoop(host: Host, path: string, signal: AbortSignal): Promise<string> {
  return (await host.run(['losetup', '--find', '--show', '--', path], { signal })).stdout.trim();
}

export async function detachLoop(host: Host, device: string, signal: AbortSignal): Promise<void> {
  await host.run(['losetup', '--detach', device], { signal });
}
