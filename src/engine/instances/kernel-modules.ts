// linux.kernel_modules: loaded on the host before a container that wants them runs.
import type { Host } from '#src/host/host.ts';
import type { ConfigMap } from '../types.ts';

export async function loadKernelModules(host: Host, config: ConfigMap, signal: AbortSignal): Promise<void> {
  const modules = (config['linux.kernel_modules'] ?? '').split(',').map((name) => name.trim());
  for (const name of modules.filter((module) => module !== '')) await host.run(['modprobe', '-b', name], { signal });
}
