// All routes of the API on one application.
import type { Engine } from '#src/engine/engine.ts';
import type { InstancesPart } from '#src/engine/types.ts';
import type { ApiApp } from './app.ts';
import { registerCertificateRoutes } from './certificates.ts';
import { registerEventRoutes } from './events.ts';
import { registerClusterRoutes } from './cluster.ts';
import { SERVER_EXTENSIONS } from './extensions.ts';
import { registerImageAliasRoutes } from './image-aliases.ts';
import { registerImageTransferRoutes } from './image-transfers.ts';
import { registerImageRoutes } from './images.ts';
import { type InternalDeps, registerInternalRoutes } from './internal.ts';
import { registerMetricsRoutes } from './metrics.ts';
import { FORWARD_EXTENSIONS, registerForwardRoutes } from './network-forwards.ts';
import { registerNetworkRoutes } from './networks.ts';
import { registerOperationRoutes } from './operations.ts';
import { registerProfileRoutes } from './profiles.ts';
import { registerProjectRoutes } from './projects.ts';
import { registerRecoveryRoutes } from './recovery.ts';
import { registerServerRoutes } from './server.ts';
import { registerStoragePoolRoutes } from './storage-pools.ts';
import { registerVolumeRoutes, VOLUME_EXTENSIONS } from './volumes.ts';
import type { Upgrades } from './upgrades.ts';
import { registerWarningRoutes } from './warnings.ts';

export interface RouteDeps<Instances extends InstancesPart> extends Pick<InternalDeps, 'shutdown'> {
  readonly engine: Engine<Instances>;
  readonly upgrades: Upgrades;
  readonly instanceRoutes: InstanceRoutes<Instances>;
}

/** The routes of instances, and the extensions that they bring. */
export interface InstanceRoutes<Instances extends InstancesPart> {
  readonly extensions: readonly string[];
  readonly register: (app: ApiApp, engine: Engine<Instances>, upgrades: Upgrades) => void;
}

export function registerRoutes<Instances extends InstancesPart>(app: ApiApp, deps: RouteDeps<Instances>): void {
  const { engine, upgrades, instanceRoutes, shutdown } = deps;
  registerServerRoutes(app, {
    ...engine,
    extensions: [...SERVER_EXTENSIONS, ...VOLUME_EXTENSIONS, ...FORWARD_EXTENSIONS, ...instanceRoutes.extensions],
  });
  registerOperationRoutes(app, engine);
  registerEventRoutes(app, upgrades, engine);
  registerCertificateRoutes(app, engine);
  registerImageRoutes(app, engine);
  registerImageTransferRoutes(app, engine);
  registerImageAliasRoutes(app, engine);
  registerProfileRoutes(app, engine);
  registerStoragePoolRoutes(app, engine);
  registerVolumeRoutes(app, engine);
  registerNetworkRoutes(app, engine);
  registerForwardRoutes(app, engine);
  registerProjectRoutes(app, engine);
  registerClusterRoutes(app);
  registerMetricsRoutes(app, engine);
  registerWarningRoutes(app, engine);
  registerInternalRoutes(app, { shutdown, haveStarted: () => engine.instances.haveStarted() });
  registerRecoveryRoutes(app, engine);
  instanceRoutes.register(app, engine, upgrades);
}
