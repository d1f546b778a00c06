"""Modules of one idea each; only models import them."""

from voxseg.layers.aspp import ASPP as ASPP
from voxseg.layers.enet import ENetDecoder as ENetDecoder
from voxseg.layers.enet import ENetEncoder as ENetEncoder
from voxseg.layers.hypercolumn import dense_hypercolumns as dense_hypercolumns
from voxseg.layers.hypercolumn import sample_hypercolumns as sample_hypercolumns
from voxseg.layers.smp import SMP as SMP
from voxseg.layers.stacked_unet import UNetModule as UNetModule
from voxseg.layers.superpixel import SuperpixelBranch as SuperpixelBranch
from voxseg.layers.superpixel import SuperpixelClassifier as SuperpixelClassifier
from voxseg.layers.superpixel import pool_scores as pool_scores
from voxseg.layers.vortex import VortexPooling as VortexPooling
from voxseg.layers.vortex import average_pools as average_pools
from voxseg.layers.vortex import module_a as module_a
from voxseg.layers.voxres import Deconvolution as Deconvolution
from voxseg.layers.voxres import VoxRes as VoxRes
from voxseg.layers.voxres import VoxResTrunk as VoxResTrunk
